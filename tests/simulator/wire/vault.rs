//! The service proper: sessions, reservations, tokens, commands. Honest, and without time of
//! its own: what a command does, it does when it is carried out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use privicorefs::privicore::format_rfc3339;
use privicorefs::privicore::transport::{Call, CallBody, Method, Reply};
use privicorefs::protocol::path;
use serde_json::{Value, json};
use tokio::time::Instant;
use url::form_urlencoded;

use super::super::random::Draws;
use super::fault::At;
use super::replies::{self, Standing, error, object};
use super::shape::{Again, Filters, List, Mark, Shape, StatusMethod};

/// The login of the only profile.
pub(super) const LOGIN: (&str, &str) = ("someone", "correct horse battery staple 7");

/// Form fields, a query, or the members of a JSON body.
type Fields = BTreeMap<String, String>;

/// A permanent token and what it stands for.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// The token.
    pub(crate) token: String,
    /// As the last step of its put said, or its reservation.
    pub(crate) context: String,
    /// As its reservation said, or the service's own.
    pub(crate) mark: String,
    /// What the last step of its put said.
    pub(crate) file: Option<File>,
    /// The payload.
    pub(crate) payload: Bytes,
    /// Risk meta.
    pub(crate) risk: Option<Value>,
}

/// File meta.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) extension: String,
    pub(crate) size: u64,
}

struct Reservation {
    context: String,
    mark: String,
    until: Instant,
    /// Once it has been exchanged, or has arrived and been routed.
    payload: Option<Bytes>,
    permanent: Option<String>,
}

/// What a command does when it is carried out.
#[derive(Debug)]
pub(super) enum Work {
    Reserve { temporary: String, context: String, mark: String, minutes: u64 },
    Exchange { temporary: String, payload: Bytes },
    Configure { temporary: String, context: String, file: File },
    Delete { token: String },
    Meta { token: String, changes: Fields },
    Risk { token: String, risk: Value },
    Request { token: String, request: String },
    Nothing,
}

/// What a call comes to.
pub(super) enum Served {
    Now(Reply),
    /// The reply, and the command that it names.
    Command(Reply, String, Work),
}

/// See the module's header.
pub(super) struct Vault {
    pub(super) shape: Shape,
    began: Instant,
    draws: Draws,
    made: u64,
    sessions: BTreeMap<String, Instant>,
    commands: BTreeMap<String, Standing>,
    /// Temporary tokens by the command of their reservation.
    reserved_by: BTreeMap<String, String>,
    reservations: BTreeMap<String, Reservation>,
    /// By age.
    stored: BTreeMap<u64, Stored>,
    uploads: BTreeMap<String, String>,
    downloads: BTreeMap<String, Bytes>,
    /// Names and labels that tokens were given at some time.
    done: BTreeSet<(String, String)>,
}

impl At {
    /// What a call is.
    pub(super) fn of(call: &Call) -> Option<Self> {
        Some(match &*call.path {
            path::AUTHENTICATE => Self::Login,
            path::REAUTHORIZE | path::EXPIRY => Self::Renew,
            path::RESERVE => Self::Reserve,
            path::TEMPORARY_TOKEN => Self::Temporary,
            path::EXCHANGE => Self::Exchange,
            path::CONFIGURE_FILE => Self::Configure,
            path::REQUEST_STATUS => Self::Poll,
            path::LIST => Self::List,
            path::REQUEST_DATA => Self::Request,
            path::DELETE => Self::Delete,
            path::UPDATE_META => Self::Meta,
            path::CONFIGURE_RISK => Self::Risk,
            path::STORAGE_LIST => Self::Storage,
            _ => return None,
        })
    }
}

fn fields(call: &Call) -> Fields {
    let bytes = match &call.body {
        CallBody::Form(form) => &form[..],
        CallBody::Empty | CallBody::Json(_) => call.query.as_deref().unwrap_or("").as_bytes(),
    };
    form_urlencoded::parse(bytes).into_owned().collect()
}

impl Vault {
    pub(super) fn new(seed: u64, shape: Shape) -> Self {
        Self {
            shape,
            began: Instant::now(),
            draws: Draws::new(seed),
            made: 0,
            sessions: BTreeMap::new(),
            commands: BTreeMap::new(),
            reserved_by: BTreeMap::new(),
            reservations: BTreeMap::new(),
            stored: BTreeMap::new(),
            uploads: BTreeMap::new(),
            downloads: BTreeMap::new(),
            done: BTreeSet::new(),
        }
    }

    /// A name that nothing had before.
    pub(super) fn name(&mut self, kind: &str) -> String {
        self.made += 1;
        format!("{kind}-{:04}-{:012x}", self.made, self.draws.next() >> 16)
    }

    /// All permanent tokens, oldest first.
    pub(super) fn stored(&self) -> impl Iterator<Item = &Stored> {
        self.stored.values()
    }

    fn find(&self, token: &str) -> Option<u64> {
        let mut found = self.stored.iter().filter(|(_, stored)| stored.token == token);
        found.next().map(|(age, _)| *age).or_else(|| {
            // A temporary token names the permanent one as long as it would have lived.
            let reservation = self.reservations.get(token)?;
            let permanent = reservation.permanent.as_deref().filter(|name| *name != token)?;
            (reservation.until > Instant::now()).then(|| self.find(permanent))?
        })
    }

    /// All permanent tokens.
    pub(super) fn tokens(&self) -> Vec<String> {
        self.stored.values().map(|stored| stored.token.clone()).collect()
    }

    /// The payload that a token gives now.
    pub(super) fn payload(&self, token: &str) -> Option<Bytes> {
        self.stored.get(&self.find(token)?).map(|stored| stored.payload.clone())
    }

    /// Whether a token was given a name, or a label, at some time.
    pub(super) fn was_done(&self, token: &str, what: &str) -> bool {
        let age = self.find(token).map(|age| self.stored[&age].token.clone());
        self.done.contains(&(age.unwrap_or_default(), what.to_owned()))
    }

    /// Ends all authorization tokens.
    pub(super) fn end_sessions(&mut self) {
        self.sessions.clear();
    }

    /// Whether a token counts.
    pub(super) fn authorizes(&self, token: Option<&str>) -> bool {
        let until = token.and_then(|token| self.sessions.get(token));
        until.is_some_and(|until| *until > Instant::now())
    }

    fn authorize(&mut self) -> Value {
        let life = match self.shape.authorized_secs {
            0 => Duration::from_secs(365 * 86_400),
            secs => Duration::from_secs(secs.into()),
        };
        let token = self.name("T");
        self.sessions.insert(token.clone(), Instant::now() + life);
        json!({ "authorizationToken": token, "expiresAt": self.written(life) })
    }

    fn written(&self, after: Duration) -> String {
        let epoch = Duration::from_millis(super::super::tasks::EPOCH_MS);
        format_rfc3339(std::time::UNIX_EPOCH + epoch + self.began.elapsed() + after)
    }

    fn renew(&mut self, call: &Call, token: &str) -> Served {
        if call.path == path::EXPIRY {
            let left = self.sessions[token].saturating_duration_since(Instant::now());
            return Served::Now(object(200, &json!({ "expiresAt": self.written(left) })));
        }
        let old = self.sessions.remove(token);
        let authorized = self.authorize();
        if self.shape.swaps_token {
            return Served::Now(object(200, &authorized));
        }
        // The same token, with the new one's life.
        let new = authorized["authorizationToken"].as_str().unwrap_or_default();
        let until = self.sessions.remove(new).or(old);
        self.sessions.extend(until.map(|until| (token.to_owned(), until)));
        self.command(Work::Nothing)
    }

    /// A call, as far as it is answered at once.
    pub(super) fn serve(&mut self, at: At, call: &Call, token: Option<&str>) -> Served {
        let fields = fields(call);
        if at == At::Login {
            let given = |name: &str| fields.get(name).map(String::as_str);
            let known = (given("username"), given("password")) == (Some(LOGIN.0), Some(LOGIN.1));
            return Served::Now(match known {
                true => object(200, &self.authorize()),
                false => error(401, "profile.invalid_credentials"),
            });
        }
        if !self.authorizes(token) {
            return Served::Now(error(401, "profile.invalid_token"));
        }
        let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
        match at {
            At::Renew => self.renew(call, token.unwrap_or_default()),
            At::Reserve => self.reserve(&fields),
            At::Temporary => self.temporary(call.id.as_deref().unwrap_or_default()),
            At::Exchange => {
                let payload = STANDARD.decode(field("data")).unwrap_or_default().into();
                match self.reservations.contains_key(&field("temporaryTokenSpace")) {
                    true => {
                        let temporary = field("temporaryTokenSpace");
                        self.command(Work::Exchange { temporary, payload })
                    }
                    false => Served::Now(error(404, "data_token.not_found")),
                }
            }
            At::Configure => self.configure(&fields),
            At::Poll => Served::Now(self.poll(call)),
            At::List => Served::Now(self.list(&fields)),
            At::Request => self.request(&field("token")),
            At::Delete => self.command(Work::Delete { token: field("token") }),
            At::Meta if self.shape.lacks_update => Served::Now(error(404, "route.not_found")),
            At::Meta => self.command(Work::Meta { token: field("token"), changes: fields }),
            At::Risk => {
                let risk = json!({
                    "classification": field("classification"), "label": field("label"),
                    "handling": field("handling"),
                });
                self.command(Work::Risk { token: field("token"), risk })
            }
            At::Storage => Served::Now(object(200, &json!([{"deviceIdentifier": "device-1"}]))),
            _ => Served::Now(error(404, "route.not_found")),
        }
    }

    /// A new command.
    fn pending(&mut self) -> String {
        let id = self.name("cmd");
        self.commands.insert(id.clone(), Standing::Pending);
        id
    }

    fn command(&mut self, work: Work) -> Served {
        let id = self.pending();
        Served::Command(replies::accepted(&self.shape, &id), id, work)
    }

    fn reserve(&mut self, fields: &Fields) -> Served {
        let refused = |name: &str| {
            let errors = json!({"message": "Parameter Error", "errors": {name: ["unknown"]}});
            Served::Now(object(422, &errors))
        };
        let given = fields.get("uuid").cloned();
        if given.is_some() && self.shape.mark == Mark::Refused {
            return refused("uuid");
        }
        let minutes = fields.get("ttl").and_then(|ttl| ttl.parse().ok()).unwrap_or(5);
        if minutes > 60 || (minutes > 5 && self.shape.refuses_long_ttl) {
            return refused("ttl");
        }
        let mark = match given {
            Some(mark) if self.shape.mark == Mark::Kept => mark,
            _ => self.name("uuid"),
        };
        let temporary = self.name("tmp");
        let context = fields.get("context").cloned().unwrap_or_default();
        let id = self.pending();
        self.reserved_by.insert(id.clone(), temporary.clone());
        let reply = replies::accepted(&self.shape, &id);
        Served::Command(reply, id, Work::Reserve { temporary, context, mark, minutes })
    }

    fn temporary(&mut self, command: &str) -> Served {
        let token = self.reserved_by.get(command).cloned();
        let known = token.filter(|token| self.reservations.contains_key(token));
        Served::Now(match known {
            Some(token) => {
                let auth = self.name("up");
                self.uploads.insert(auth.clone(), token.clone());
                replies::temporary(&self.shape, &token, &auth)
            }
            None => error(404, "data_token.not_found"),
        })
    }

    /// Takes the credential of an upload: the temporary token that it is for.
    pub(super) fn take_upload(&mut self, auth: &str) -> Option<String> {
        let temporary = self.uploads.remove(auth)?;
        let until = self.reservations.get(&temporary)?.until;
        (until > Instant::now()).then_some(temporary)
    }

    /// Makes a command of a payload that has arrived.
    pub(super) fn uploaded(&mut self, temporary: String, payload: Bytes) -> (String, Work) {
        (self.pending(), Work::Exchange { temporary, payload })
    }

    /// The length of what a download's credential is for.
    pub(super) fn download_len(&self, auth: &str) -> Option<u64> {
        self.downloads.get(auth).map(|payload| payload.len() as u64)
    }

    /// Takes the payload of a download's credential.
    pub(super) fn take_download(&mut self, auth: &str) -> Option<Bytes> {
        self.downloads.remove(auth)
    }

    fn configure(&mut self, fields: &Fields) -> Served {
        let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
        let token = field("token");
        if field("extension").is_empty() && self.shape.refuses_empty_extension {
            let errors = json!({"message": "Parameter Error", "errors": {"extension": ["blank"]}});
            return Served::Now(object(422, &errors));
        }
        let now = Instant::now();
        let known = self.reservations.get(&token).filter(|reservation| reservation.until > now);
        let Some(reservation) = known else {
            return Served::Now(error(404, "data_token.not_found"));
        };
        if reservation.payload.is_none() {
            return Served::Now(error(409, "data_token.not_exchanged"));
        }
        let again = reservation.permanent.is_some() && !self.shape.permanent_at_exchange;
        match self.shape.again {
            Again::Gone if again => return Served::Now(error(404, "data_token.not_found")),
            Again::Conflict if again => {
                return Served::Now(error(409, "data_token.already_configured"));
            }
            _ => {}
        }
        let file = File {
            name: field("fileName"),
            extension: field("extension"),
            size: field("size").parse().unwrap_or(0),
        };
        let work = Work::Configure { temporary: token.clone(), context: field("context"), file };
        if self.shape.configures_later() {
            let id = self.pending();
            return Served::Command(replies::configured(&self.shape, &token, "", &id), id, work);
        }
        self.do_configure(work);
        let permanent = self.promote(&token);
        Served::Now(replies::configured(&self.shape, &token, &permanent, ""))
    }

    fn do_configure(&mut self, work: Work) {
        let Work::Configure { temporary, context, file } = work else { return };
        let permanent = self.promote(&temporary);
        if let Some(stored) = self.find(&permanent).and_then(|age| self.stored.get_mut(&age)) {
            stored.file = Some(file);
            stored.context = context;
        }
    }

    /// Makes a temporary token permanent, once; the permanent token.
    fn promote(&mut self, temporary: &str) -> String {
        let kept = self.shape.keeps_name();
        let name = if kept { temporary.to_owned() } else { self.name("dtk") };
        let Some(reservation) = self.reservations.get_mut(temporary) else { return name };
        if let Some(permanent) = &reservation.permanent {
            return permanent.clone();
        }
        reservation.permanent = Some(name.clone());
        let stored = Stored {
            token: name.clone(),
            context: reservation.context.clone(),
            mark: reservation.mark.clone(),
            file: None,
            payload: reservation.payload.clone().unwrap_or_default(),
            risk: None,
        };
        self.made += 1;
        self.stored.insert(self.made, stored);
        name
    }

    fn poll(&self, call: &Call) -> Reply {
        let refused = match self.shape.status_method {
            StatusMethod::Both => false,
            StatusMethod::Get => call.method != Method::Get,
            StatusMethod::Post => call.method != Method::Post,
        };
        let id = call.id.as_deref().unwrap_or_default();
        match self.commands.get(id) {
            _ if refused => error(405, "route.method_not_allowed"),
            Some(standing) => replies::status(&self.shape, standing, id),
            None => error(404, "record.not_found"),
        }
    }

    fn list(&self, fields: &Fields) -> Reply {
        let number = |name: &str| fields.get(name).and_then(|text| text.parse::<usize>().ok());
        let size = number("perPage").unwrap_or(25);
        let filters = ["context", "meta.file.fileName", "meta.file.extension", "token"];
        let filters =
            filters.map(|name| fields.get(&format!("filters[{name}]")).map(String::as_str));
        let filtered = filters.iter().any(Option::is_some);
        if (size > 25 && self.shape.refuses_large_pages)
            || (filtered && self.shape.filters == Filters::Refused)
        {
            return object(422, &json!({"message": "Parameter Error"}));
        }
        let [context, name, extension, token] = filters;
        let passes = |stored: &&Stored| {
            let file = stored.file.as_ref();
            self.shape.filters == Filters::Ignored
                || (context.is_none_or(|context| context == stored.context)
                    && name.is_none_or(|name| file.is_some_and(|file| file.name == name))
                    && extension.is_none_or(|ext| file.is_some_and(|file| file.extension == ext))
                    && token.is_none_or(|token| token == stored.token))
        };
        let found: Vec<_> = self.stored.values().filter(passes).collect();
        let page = number("page").unwrap_or(1).max(1);
        if self.shape.list == List::Array {
            // The oldest form knows no pages.
            return replies::page(&self.shape, &found, 1, found.len());
        }
        let rest: Vec<_> = found.into_iter().skip((page - 1) * size).take(size).collect();
        replies::page(&self.shape, &rest, page, size)
    }

    fn request(&mut self, token: &str) -> Served {
        if self.find(token).is_none() {
            return Served::Now(error(404, "data_token.not_found"));
        }
        let request = self.name("req");
        let id = self.pending();
        let reply = replies::requested(&self.shape, &id, &request);
        Served::Command(reply, id, Work::Request { token: token.to_owned(), request })
    }

    /// Carries out a command; the messages that tell of it.
    pub(super) fn carry_out(&mut self, id: &str, work: Work) -> Vec<String> {
        let mut told = Vec::new();
        let standing = match work {
            Work::Nothing => Standing::Done,
            Work::Reserve { temporary, context, mark, minutes } => {
                let until = Instant::now() + Duration::from_secs(minutes * 60);
                let (payload, permanent) = (None, None);
                let reservation = Reservation { context, mark, until, payload, permanent };
                self.reservations.insert(temporary, reservation);
                Standing::Done
            }
            Work::Exchange { temporary, payload } => self.exchange(&temporary, payload),
            work @ Work::Configure { .. } => {
                self.do_configure(work);
                Standing::Done
            }
            Work::Delete { token } => self.on(&token, |vault, age| {
                vault.stored.remove(&age);
            }),
            Work::Meta { token, changes } => {
                self.on(&token, |vault, age| vault.change(age, &changes))
            }
            Work::Risk { token, risk } => self.on(&token, |vault, age| {
                if let Some(stored) = vault.stored.get_mut(&age) {
                    let label = risk["label"].as_str().unwrap_or_default().to_owned();
                    vault.done.insert((stored.token.clone(), label));
                    stored.risk = Some(risk);
                }
            }),
            Work::Request { token, request } => match self.payload(&token) {
                Some(payload) => {
                    let auth = self.name("down");
                    told = replies::answers(&self.shape, &request, &auth, &payload);
                    self.downloads.insert(auth, payload);
                    self.commands.insert(id.to_owned(), Standing::Done);
                    return told;
                }
                None => Standing::Rejected("data_token.not_found"),
            },
        };
        told.extend(replies::acknowledgement(&self.shape, id, &standing));
        self.commands.insert(id.to_owned(), standing);
        told
    }

    fn on(&mut self, token: &str, work: impl FnOnce(&mut Self, u64)) -> Standing {
        match self.find(token) {
            Some(age) => {
                work(self, age);
                Standing::Done
            }
            None => Standing::Rejected("data_token.not_found"),
        }
    }

    fn exchange(&mut self, temporary: &str, payload: Bytes) -> Standing {
        let now = Instant::now();
        let reservation = self.reservations.get_mut(temporary).filter(|one| one.until > now);
        match reservation {
            Some(reservation) if reservation.payload.is_none() => {
                reservation.payload = Some(payload);
                if self.shape.permanent_at_exchange {
                    self.promote(temporary);
                }
                Standing::Done
            }
            Some(_) => Standing::Rejected("data_token.already_exchanged"),
            None => Standing::Rejected("data_token.not_found"),
        }
    }

    fn change(&mut self, age: u64, changes: &Fields) {
        let Some(stored) = self.stored.get_mut(&age) else { return };
        let mut file = stored.file.take().unwrap_or(File {
            name: String::new(),
            extension: String::new(),
            size: 0,
        });
        if let Some(name) = changes.get("fileName") {
            file.name.clone_from(name);
            self.done.insert((stored.token.clone(), name.clone()));
        }
        if let Some(extension) = changes.get("extension") {
            file.extension.clone_from(extension);
        }
        if let Some(context) = changes.get("context") {
            stored.context.clone_from(context);
        }
        stored.file = Some(file);
    }

    /// The id of a command of another client, or of one that is over.
    pub(super) fn another(&mut self, than: &str) -> String {
        let over = |(id, standing): (&String, &Standing)| {
            (*standing != Standing::Pending && id != than).then(|| id.clone())
        };
        let over: Vec<_> = self.commands.iter().filter_map(over).collect();
        match self.draws.below(2) {
            0 if !over.is_empty() => over[self.draws.below(over.len() as u64) as usize].clone(),
            _ => self.name("foreign"),
        }
    }
}
