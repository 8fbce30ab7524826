//! Table tests: every variant that the protocol's section D lists, reader by reader.

use super::*;

fn reply(status: u16, header: Option<&str>, body: &str) -> Reply {
    Reply {
        status,
        command_header: header.map(str::to_owned),
        body: Bytes::copy_from_slice(body.as_bytes()),
        ..Reply::default()
    }
}

#[test]
fn command_ids_are_found_in_every_shape() {
    let table = [
        (Some("head"), r#"["body"]"#, Some("head")),
        (None, r#""5a1b""#, Some("5a1b")),
        (None, "5a1b-77", Some("5a1b-77")),
        (None, r#"["5a1b"]"#, Some("5a1b")),
        (None, r#"{"commandId":"5a1b"}"#, Some("5a1b")),
        (None, r#"{"X-DPT-CAB-ID":"5a1b"}"#, Some("5a1b")),
        (None, r#"{"commandId":17}"#, Some("17")),
        (Some("head"), "", Some("head")),
        (None, "", None),
        (None, "null", None),
        (None, "[]", None),
        (None, "<html>no</html>", None),
    ];
    for (header, body, expected) in table {
        assert_eq!(reply(202, header, body).command_id().as_deref(), expected, "{body}");
    }
}

#[test]
fn request_ids_come_from_the_header_or_the_body() {
    let mut one = reply(202, Some("cab"), r#"{"commandId":"c","requestId":"r"}"#);
    assert_eq!(one.request_id().as_deref(), Some("r"));
    one.request_header = Some("header".into());
    assert_eq!(one.request_id().as_deref(), Some("header"));
    assert_eq!(reply(202, Some("cab"), "null").request_id(), None);
}

#[test]
fn an_upload_reply_is_awaited_only_if_it_names_a_command() {
    let id = "01927ba1-3e7-91da-e614-25f7be07889a";
    let table = [
        (None, String::new(), None),
        (None, "OK".into(), None),
        (None, r#"{"status":"uploaded"}"#.into(), None),
        (None, format!("[\"{id}\"]"), Some(id)),
        (None, format!("{{\"commandId\":\"{id}\"}}"), Some(id)),
        (Some("c1"), "OK".into(), Some("c1")),
    ];
    for (header, body, expected) in table {
        assert_eq!(reply(200, header, &body).upload_command_id().as_deref(), expected, "{body}");
    }
}

#[test]
fn error_texts_are_read_from_every_shape_and_hold_no_credential() {
    let table = [
        (r#""plain""#, "HTTP status 422: plain"),
        (r#"["one","two"]"#, "HTTP status 422: one; two"),
        (r#"{"message":"m","error":"e"}"#, "HTTP status 422: m"),
        (r#"{"error":"e.key"}"#, "HTTP status 422: e.key"),
        (r#"{"detail":"d"}"#, "HTTP status 422: d"),
        (r#"{"title":"t"}"#, "HTTP status 422: t"),
        (r#"{"errors":{"ttl":["too big"]}}"#, "HTTP status 422: ttl: too big"),
        (r#"{"message":"bad","errors":{"ttl":["big"]}}"#, "HTTP status 422: bad (ttl: big)"),
        ("raw words", "HTTP status 422: raw words"),
        ("", "HTTP status 422"),
        ("{}", "HTTP status 422"),
        (
            "see https://up/?auth=s3cret&x=1 and auth=other",
            "HTTP status 422: see https://up/?auth=(redacted)&x=1 and auth=(redacted)",
        ),
    ];
    for (body, expected) in table {
        assert_eq!(reply(422, None, body).error_text(), expected, "{body}");
    }
    assert!(reply(500, None, &"x".repeat(5_000)).error_text().len() < 400);
}

#[test]
fn statuses_become_kinds() {
    use StoreErrorKind as K;
    let table = [
        (401, K::Unauthenticated),
        (403, K::Denied),
        (404, K::NotFound),
        (405, K::Unsupported),
        (409, K::Invalid),
        (413, K::TooLarge),
        (422, K::Invalid),
        (425, K::RateLimited),
        (429, K::RateLimited),
        (500, K::Unavailable),
        (503, K::Unavailable),
        (302, K::Protocol),
    ];
    for (status, kind) in table {
        assert_eq!(kind_of_status(status), kind, "{status}");
    }
}

#[test]
fn rejections_are_told_apart_by_their_text() {
    use StoreErrorKind as K;
    let table = [
        ("data_token.not_found", K::NotFound),
        ("Token not found", K::NotFound),
        ("storage.no_storage_device", K::NoStorage),
        ("storage.no_device", K::NoStorage),
        ("reservation expired", K::TimedOut),
        ("profile.not_an_owner", K::Denied),
        ("policy vote refused", K::Denied),
        ("", K::Denied),
    ];
    for (text, kind) in table {
        assert_eq!(rejection("get", text).kind, kind, "{text}");
    }
}

#[test]
fn command_states_follow_the_first_match() {
    use CommandStatus as S;
    let table = [
        (200, r#"{"commandId":"c","command_status":1,"body":null}"#, S::Pending),
        (200, r#"{"commandId":"c","command_status":2,"body":"fine"}"#, S::Succeeded),
        (200, r#"{"command_status":3,"body":"no"}"#, S::Rejected("no".into())),
        (200, r#"{"command_status":"2"}"#, S::Succeeded),
        (200, r#""started""#, S::Pending),
        (202, r#"["started"]"#, S::Pending),
        (200, r#"["SUCCEEDED"]"#, S::Succeeded),
        (200, "succeeded", S::Succeeded),
        (404, r#"["rejected"]"#, S::Rejected("rejected".into())),
        (200, r#"["started"]"#, S::Pending),
        (200, "", S::Succeeded),
        (202, "", S::Pending),
        (404, r#"{"message":"Record Not Found"}"#, S::Unknown),
        (404, "", S::Unknown),
        (500, "", S::Unknown),
    ];
    for (status, body, expected) in table {
        assert_eq!(command_status(&reply(status, None, body)), expected, "{status} {body}");
    }
}

#[test]
fn temporary_tokens_are_read_in_every_shape() {
    let base = Url::parse("https://upstream.example.com:8010").unwrap();
    let table: [(&str, &str, Option<&str>); 9] = [
        (
            r#"{"token":"t","stream":"https://up.example.com:8010/?auth=abc"}"#,
            "t",
            Some("https://up.example.com:8010/?auth=abc"),
        ),
        (
            r#"{"token":"t","stream":"a+b","stream_server_id":"s1.example.com","stream_server_port":8010}"#,
            "t",
            Some("https://s1.example.com:8010/?auth=a%2Bb"),
        ),
        (
            r#"{"token":"t","stream":"abc","stream_server_id":"http://127.0.0.1","stream_server_port":"81"}"#,
            "t",
            Some("http://127.0.0.1:81/?auth=abc"),
        ),
        (
            r#"{"token":"t","stream":"abc"}"#,
            "t",
            Some("https://upstream.example.com:8010/?auth=abc"),
        ),
        (
            r#"{"token":"t","stream":"s.example.com:9/?auth=abc"}"#,
            "t",
            Some("https://s.example.com:9/?auth=abc"),
        ),
        (r#"{"token":"t","stream":""}"#, "t", None),
        (r#"{"uuid":"u","createdAt":"x","token":"t","context":"c","ttl":5}"#, "t", None),
        (r#""tmp-1""#, "tmp-1", None),
        ("tmp-1", "tmp-1", None),
    ];
    for (body, token, upstream) in table {
        let read = temporary_token(&reply(200, None, body), Some(&base)).unwrap();
        assert_eq!(read.token.as_str(), token, "{body}");
        let url = read.upstream.as_ref().map(|url| url.expose().as_str());
        assert_eq!(url, upstream, "{body}");
    }
    assert_eq!(temporary_token(&reply(200, None, "{}"), None), None);
}

#[test]
fn promotions_follow_the_rule() {
    let permanent = || Promotion::Permanent(Token::new("dtk"));
    let command = || Promotion::Command("c".into());
    let table = [
        (200, None, r#"{"token":"dtk"}"#, permanent()),
        (200, None, r#""dtk""#, permanent()),
        (200, None, "dtk", permanent()),
        (200, Some("c"), r#""dtk""#, permanent()),
        (200, Some("c"), r#""c""#, command()),
        (202, Some("c"), "", command()),
        (202, None, r#"["c"]"#, command()),
        (202, Some("c"), r#"{"token":"dtk"}"#, permanent()),
        (200, None, r#"["c"]"#, command()),
        (200, None, r#"{"commandId":"c"}"#, command()),
        (200, None, "{}", Promotion::Same),
        (200, None, "[]", Promotion::Same),
        (204, None, "", Promotion::Same),
    ];
    for (status, header, body, expected) in table {
        assert_eq!(promotion(&reply(status, header, body)), expected, "{status} {body}");
    }
}

#[test]
fn logins_and_storage_lists_are_read() {
    let login =
        reply(200, None, r#"{"authorizationToken":"T-1","expiresAt":"1970-01-01T00:01:00+00:00"}"#);
    let read = authorization(&login).unwrap();
    assert_eq!(read.token.expose(), "T-1");
    assert_eq!(read.expires, std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(60)));
    assert!(authorization(&reply(202, None, r#"["command"]"#)).is_none());
    for (body, count) in
        [("[]", Some(0)), ("[{}]", Some(1)), (r#"{"items":[{},{}]}"#, Some(2)), ("{}", None)]
    {
        assert_eq!(storage_count(&reply(200, None, body)), count, "{body}");
    }
}
