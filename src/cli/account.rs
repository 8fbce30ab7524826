//! `account`: the profile, its login and its public key (protocol C.2, C.3).

use clap::builder::PossibleValue;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::kept::{Kept, KeptError};
use super::keyring::KeyringError;
use super::output::Output;
use super::prompt::NewPassword;
use super::session::{self, Plain, SessionError};
use super::{Exit, prompt};
use crate::config::SessionStore;
use crate::env::Env;
use crate::privicore::{Authorization, Client, PublicKey, Secret, format_rfc3339};
use crate::store::{StoreError, StoreErrorKind};

#[derive(Debug, Subcommand)]
pub(super) enum AccountCommand {
    /// Register a profile, and a public key for it
    ///
    /// The password is asked for twice, or comes from where the options say.
    Register(Plain),
    /// Log in, and keep the session for later commands
    ///
    /// The session (not the password) is kept until it expires or `logout`: in the desktop's
    /// keyring if one answers, else in a private file of this user. `session_store` in the
    /// configuration file chooses: "auto", "keyring" or "file".
    Login {
        /// Keep it in the desktop's keyring, or fail
        #[arg(long)]
        keyring: bool,
        #[command(flatten)]
        plain: Plain,
    },
    /// Revoke the kept session at the service, and forget it
    Logout(Plain),
    /// Ask whether the service answers; needs no login
    Ping(Plain),
    /// Show who the service takes this user for
    Whoami(Plain),
    /// Change the password
    ///
    /// The current password is asked for, or comes from where the connection options say.
    Password(PasswordArgs),
    /// The authorization token in use
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make a single-use token for another device's login, to be shown as a QR code
    ///
    /// With --json only its expiry is printed: JSON holds no secret.
    Qr(Plain),
    /// The public key that is registered for the profile
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Args, Debug)]
pub(super) struct PasswordArgs {
    #[command(flatten)]
    new: NewPassword,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Show until when the token counts
    Show {
        /// Print the token itself too
        #[arg(long)]
        reveal: bool,
        #[command(flatten)]
        plain: Plain,
    },
    /// Make the token last longer, counted from now
    Extend {
        /// How long [default: what the service likes]
        #[arg(long, value_name = "TIME")]
        ttl: Option<Lifetime>,
        #[command(flatten)]
        plain: Plain,
    },
    /// Revoke the token at the service, and forget it if it is kept
    Revoke(Plain),
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Show the profile's public key
    Show(Plain),
    /// Show the public key of the service's engine
    Engine(Plain),
    /// Register a public key in place of the one before
    Register {
        /// 200 hexadecimal digits; the checksum in it is verified
        #[arg(value_name = "KEY")]
        key: String,
        #[command(flatten)]
        plain: Plain,
    },
}

/// One of the eight lifetimes that reauthorize takes, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime(u64);

/// By name and in seconds, in the order of the protocol's list.
const LIFETIMES: [(&str, &str, Lifetime); 8] = [
    ("1h", "3600", Lifetime(3_600)),
    ("1d", "86400", Lifetime(86_400)),
    ("7d", "604800", Lifetime(604_800)),
    ("30d", "2592000", Lifetime(2_592_000)),
    ("90d", "7776000", Lifetime(7_776_000)),
    ("180d", "15552000", Lifetime(15_552_000)),
    ("270d", "23328000", Lifetime(23_328_000)),
    ("360d", "31104000", Lifetime(31_104_000)),
];

impl ValueEnum for Lifetime {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Lifetime; 8] = {
            let mut all = [Lifetime(0); 8];
            let mut at = 0;
            while at < all.len() {
                all[at] = LIFETIMES[at].2;
                at += 1;
            }
            all
        };
        &ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let named = LIFETIMES.iter().find(|(.., lifetime)| lifetime.0 == self.0);
        named.map(|(name, seconds, _)| PossibleValue::new(*name).alias(*seconds))
    }
}

/// Runs a command of the group.
pub(super) fn run(command: AccountCommand, output: &Output) -> anyhow::Result<Exit> {
    match command {
        AccountCommand::Register(plain) => register(&plain, output),
        AccountCommand::Login { keyring, plain } => login(keyring, &plain, output),
        AccountCommand::Logout(plain) => logout(&plain, output),
        AccountCommand::Ping(plain) => ping(&plain, output),
        AccountCommand::Whoami(plain) => whoami(&plain, output),
        AccountCommand::Password(args) => password(&args, output),
        AccountCommand::Token(TokenCommand::Show { reveal, plain }) => show(reveal, &plain, output),
        AccountCommand::Token(TokenCommand::Extend { ttl, plain }) => extend(ttl, &plain, output),
        AccountCommand::Token(TokenCommand::Revoke(plain)) => revoke(&plain, output),
        AccountCommand::Qr(plain) => qr(&plain, output),
        AccountCommand::Key(KeyCommand::Show(plain)) => own_key(&plain, output),
        AccountCommand::Key(KeyCommand::Engine(plain)) => engine_key(&plain, output),
        AccountCommand::Key(KeyCommand::Register { key, plain }) => {
            register_key(&key, &plain, output)
        }
    }
}

fn register(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    let connection = plain.connect.resolve()?;
    let endpoint = session::service(&connection)?;
    // what is missing is said before anything is asked
    let mut config = session::client_config(endpoint, Secret::new(""))?;
    config.password = match &endpoint.password {
        Some(password) => password.clone(),
        None => prompt::new_secret(output)?,
    };
    let username = config.username.clone();
    let registered = session::block_on(async {
        Client::register(config, Env::system()).await.map_err(anyhow::Error::from)
    });
    if registered.as_ref().is_err_and(session::is_refusal) {
        anyhow::bail!("the name {username} is taken, and its password is another");
    }
    registered?;
    if plain.json {
        output.json(&json!({ "username": username, "registered": true }))?;
    } else {
        output.line(&format!("registered {username}"))?;
    }
    Ok(Exit::Done)
}

fn login(keyring: bool, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    let connection = plain.connect.resolve()?;
    let endpoint = session::service(&connection)?;
    let mut config = session::client_config(endpoint, Secret::new(""))?;
    config.password = match &endpoint.password {
        Some(password) => password.clone(),
        None => prompt::secret("password", output)?,
    };
    let granted = session::block_on(async {
        Client::login(&config, Env::system()).await.map_err(anyhow::Error::from)
    })?;
    let expires = expiry(&granted);
    let store = if keyring { SessionStore::Keyring } else { connection.session_store };
    let kept = Kept::new(&connection.sessions, endpoint, granted);
    let kept = kept.map(|kept| kept.save_in(store)).transpose()?;
    let place = if kept.is_some_and(|kept| kept.in_keyring()) { "keyring" } else { "file" };
    let (username, api_url) = (&config.username, config.api_url.as_str());
    if plain.json {
        output.json(&json!({
            "username": username, "api_url": api_url, "expires_at": expires, "kept": place,
        }))?;
    } else {
        let until = until(&expires);
        output.line(&format!(
            "logged in to {api_url} as {username}, {until} (kept in the {place})"
        ))?;
    }
    Ok(Exit::Done)
}

/// What is kept is forgotten in any case; a service that cannot be asked is told of.
fn logout(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    let connection = plain.connect.resolve()?;
    let endpoint = session::service(&connection)?;
    let kept = match session::found_session(&connection.sessions, endpoint) {
        Err(error) if matches!(error.downcast_ref(), Some(SessionError::None)) => {
            if plain.json {
                output.json(&json!({ "logged_out": false }))?;
            } else {
                output.note("no session is kept");
            }
            return Ok(Exit::Done);
        }
        other => other?,
    };
    let kept = match kept.clone().whole() {
        // Somebody deleted it there: nothing is left to revoke.
        Err(KeptError::Keyring(KeyringError::Gone)) => {
            kept.forget()?;
            return logged_out(plain, output);
        }
        other => other?,
    };
    let config = session::client_config(&kept.endpoint, Secret::new(""))?;
    let revoked = session::block_on(async {
        let client = Client::resume(config, kept.authorization.clone(), Env::system())?;
        let revoked = client.revoke().await;
        client.close().await;
        Ok(revoked)
    })?;
    kept.forget()?;
    match revoked {
        // Refused: the token does not count any more, which is what was wanted.
        Err(error) if error.kind != StoreErrorKind::Unauthenticated => {
            let forgotten = "the session is forgotten here, but still counts at the service";
            Err(anyhow::Error::from(error).context(forgotten))
        }
        _ => logged_out(plain, output),
    }
}

fn logged_out(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    if plain.json {
        output.json(&json!({ "logged_out": true }))?;
    } else {
        output.line("logged out")?;
    }
    Ok(Exit::Done)
}

fn ping(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    let config = session::without_login(&plain.connect, "the service's address")?;
    let url = &config.api_url;
    session::block_on(async { Ok(Client::check_health(&config).await?) })?;
    if plain.json {
        output.json(&json!({ "api_url": url.as_str(), "answers": true }))?;
    } else {
        output.line(&format!("{url} answers"))?;
    }
    Ok(Exit::Done)
}

fn whoami(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let found = session.client.whoami().await?;
        let expires = found.expires.map(format_rfc3339);
        let api_url = session.api_url.as_str();
        if plain.json {
            output.json(&json!({
                "profile_id": found.profile, "username": session.username,
                "api_url": api_url, "expires_at": expires, "scope": found.scope,
            }))?;
        } else {
            let unknown = || "unknown".to_owned();
            output.pairs(&[
                ("user", session.username.clone()),
                ("profile", found.profile),
                ("service", api_url.to_owned()),
                ("expires", expires.unwrap_or_else(unknown)),
                ("scope", found.scope.map_or_else(unknown, |scope| scope.join(" "))),
            ])?;
        }
        Ok(Exit::Done)
    })
}

fn password(args: &PasswordArgs, output: &Output) -> anyhow::Result<Exit> {
    let plain = &args.plain;
    let connection = plain.connect.resolve()?;
    let given = session::service(&connection)?.password.clone();
    let new = args.new.given()?;
    let current = match &given {
        Some(password) => password.clone(),
        None => prompt::secret("current password", output)?,
    };
    let new = match new {
        Some(new) => new,
        None => prompt::new_secret(output)?,
    };
    session::with_connection(connection, async |session| {
        session.client.change_password(&current, &new).await?;
        if plain.json {
            output.json(&json!({ "changed": true }))?;
        } else {
            output.line("the password is changed")?;
        }
        if given.is_some() {
            output.note("change it too where it was read from: a file, a command, the environment");
        }
        Ok(Exit::Done)
    })
}

fn show(reveal: bool, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        session.client.expiry().await?;
        let found = session.client.authorize().await?;
        let token = reveal.then(|| found.token.expose());
        let (expires, kept) = (expiry(&found), session.kept.is_some());
        if plain.json {
            let mut value = json!({
                "username": session.username, "api_url": session.api_url.as_str(),
                "expires_at": expires, "kept": kept,
            });
            if let Some(token) = token {
                value["token"] = json!(token);
            }
            output.json(&value)?;
        } else {
            let mut pairs = vec![
                ("user", session.username.clone()),
                ("service", session.api_url.to_string()),
                ("expires", expires.unwrap_or_else(|| "unknown".to_owned())),
                ("kept", if kept { "yes" } else { "no" }.to_owned()),
            ];
            pairs.extend(token.map(|token| ("token", token.to_owned())));
            output.pairs(&pairs)?;
        }
        Ok(Exit::Done)
    })
}

fn extend(ttl: Option<Lifetime>, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let extended = session.client.extend(ttl.map(|ttl| ttl.0)).await?;
        session.keep(&extended)?;
        let expires = expiry(&extended);
        if plain.json {
            output.json(&json!({ "expires_at": expires }))?;
        } else {
            output.line(&format!("the token counts {}", until(&expires)))?;
        }
        Ok(Exit::Done)
    })
}

fn revoke(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        session.client.revoke().await?;
        if let Some(kept) = &session.kept {
            kept.forget()?;
        }
        if plain.json {
            output.json(&json!({ "revoked": true }))?;
        } else {
            output.line("the token is revoked")?;
        }
        Ok(Exit::Done)
    })
}

fn qr(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let made = session.client.qr_token().await?;
        let expires = made.expires.map(format_rfc3339);
        if plain.json {
            output.json(&json!({ "expires_at": expires }))?;
        } else {
            output.line(made.token.expose())?;
            output.note(&format!("it can be used once, {}", until(&expires)));
        }
        Ok(Exit::Done)
    })
}

fn own_key(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let key = session.client.own_key().await?;
        show_key(key.ok_or_else(no_key)?, plain, output)
    })
}

fn no_key() -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, "public-key", "none is registered for the profile")
}

fn engine_key(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        show_key(session.client.engine_key().await?, plain, output)
    })
}

fn show_key(key: PublicKey, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    if plain.json {
        let created = key.created.map(format_rfc3339);
        output.json(&json!({ "public_key": key.text, "created_at": created }))?;
    } else {
        output.line(&key.text)?;
    }
    Ok(Exit::Done)
}

fn register_key(key: &str, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        session.client.register_key(key).await?;
        if plain.json {
            output.json(&json!({ "registered": true }))?;
        } else {
            output.line("the public key is registered")?;
        }
        Ok(Exit::Done)
    })
}

fn expiry(authorization: &Authorization) -> Option<String> {
    authorization.expires.map(format_rfc3339)
}

fn until(expires: &Option<String>) -> String {
    match expires {
        Some(at) => format!("until {at}"),
        None => "for an unknown time".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::AUTHORIZATION_TTLS;

    #[test]
    fn the_lifetimes_are_the_protocols() {
        assert_eq!(LIFETIMES.map(|(.., lifetime)| lifetime.0), AUTHORIZATION_TTLS);
        for (name, seconds, lifetime) in LIFETIMES {
            assert_eq!(seconds, lifetime.0.to_string());
            for text in [name, seconds] {
                assert_eq!(Lifetime::from_str(text, false).unwrap().0, lifetime.0, "{text}");
            }
        }
        assert!(Lifetime::from_str("300", false).is_err());
    }
}
