//! `oauth`: applications that act for a profile (protocol C.11).
//!
//! Two sides use it. A profile registers applications, and lets one act for it; an application
//! fetches its code and its tokens with its own credentials, without the profile's login.
//!
//! Client secrets, codes and tokens are never arguments and never printed unless that is
//! asked for: commands pass them on in files of mode 0600, which hold one JSON object.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueHint};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::{Zeroize, Zeroizing};

use super::Exit;
use super::output::{List, Output};
use super::private::{NewFile, Replacement};
use super::report::{done, on_file, or_dash};
use super::session::{self, Plain};
use crate::config;
use crate::env::Env;
use crate::privicore::{
    AccessToken, AuthorizationCode, OauthApplication, OauthCredentials, Secret, format_rfc3339,
    parse_rfc3339,
};

#[derive(Debug, Subcommand)]
pub(super) enum OauthCommand {
    /// Register an application, and print its id
    Register {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// Where it receives its users
        #[arg(value_name = "URL")]
        redirect_uri: String,
        /// What its tokens may have at most; repeat for more [default: all]
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        #[command(flatten)]
        plain: Plain,
    },
    /// List your applications
    List(Plain),
    /// Fetch the credentials of an application: the service gives them once only
    Configuration {
        /// The application's id
        #[arg(value_name = "APPLICATION")]
        application: String,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        plain: Plain,
    },
    /// Let an application act for you, and print the request's id and its nonce
    ///
    /// With both of them the application fetches its code (`retrieve-code`). They are worth
    /// nothing without its credentials.
    RequestCode {
        /// The application's client id, which `list` shows
        #[arg(value_name = "CLIENT_ID")]
        client_id: String,
        /// The nonce that the application gave you [default: a random one]
        #[arg(long, value_name = "TEXT")]
        nonce: Option<String>,
        /// What it may do; repeat for more [default: what it registered]
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        #[command(flatten)]
        plain: Plain,
    },
    /// As an application: fetch the code of a request, once
    RetrieveCode {
        /// The request's id
        #[arg(value_name = "REQUEST")]
        request: String,
        /// The request's nonce
        #[arg(long, value_name = "TEXT")]
        nonce: String,
        #[command(flatten)]
        credentials: CredentialsFile,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        plain: Plain,
    },
    /// As an application: change a code for an access token and a refresh token
    ObtainToken {
        /// File with the code, as `retrieve-code` writes it
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        code: PathBuf,
        #[command(flatten)]
        credentials: CredentialsFile,
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        plain: Plain,
    },
    /// As an application: change both tokens for new ones, and put them in the file's place
    ///
    /// The old ones are dead then.
    Refresh {
        #[command(flatten)]
        token: TokenFile,
        #[command(flatten)]
        plain: Plain,
    },
    /// As an application: show what its access token may do
    Scope {
        #[command(flatten)]
        token: TokenFile,
        #[command(flatten)]
        plain: Plain,
    },
}

/// Where a secret goes.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct Target {
    /// Write what is secret to this file, mode 0600; an existing one is never overwritten
    #[arg(short = 'o', long = "output", value_name = "FILE", value_hint = ValueHint::FilePath)]
    output_file: Option<PathBuf>,
    /// Print what is secret
    #[arg(long)]
    show_secret: bool,
}

#[derive(Args, Debug)]
pub(super) struct CredentialsFile {
    /// File with the application's credentials, as `configuration` writes it
    ///
    /// {"client_id": "…", "client_secret": "…"}, mode 0600.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    application: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct TokenFile {
    /// File with the tokens, as `obtain-token` writes it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    token: PathBuf,
}

/// A secret in a file's object: wiped, as the rest of it need not be.
#[derive(Serialize, Deserialize)]
struct Wiped(String);

impl Wiped {
    fn of(secret: &Secret) -> Self {
        Self(secret.expose().to_owned())
    }

    fn secret(&self) -> Secret {
        Secret::new(self.0.as_str())
    }
}

impl Drop for Wiped {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The file of an application's credentials.
#[derive(Serialize, Deserialize)]
struct Credentials {
    client_id: String,
    client_secret: Wiped,
}

/// The file of a code.
#[derive(Serialize, Deserialize)]
struct Code {
    code: Wiped,
    #[serde(default)]
    expires_at: Option<String>,
}

/// The file of a pair of tokens.
#[derive(Serialize, Deserialize)]
struct Tokens {
    token: Wiped,
    refresh_token: Wiped,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    expires_at: Option<String>,
    #[serde(default)]
    refresh_expires_at: Option<String>,
}

impl From<&OauthCredentials> for Credentials {
    fn from(found: &OauthCredentials) -> Self {
        let client_secret = Wiped::of(&found.client_secret);
        Self { client_id: found.client_id.clone(), client_secret }
    }
}

impl From<&AuthorizationCode> for Code {
    fn from(found: &AuthorizationCode) -> Self {
        let code = Wiped::of(&found.code);
        Self { code, expires_at: found.expires.map(format_rfc3339) }
    }
}

impl From<&AccessToken> for Tokens {
    fn from(found: &AccessToken) -> Self {
        Self {
            token: Wiped::of(&found.token),
            refresh_token: Wiped::of(&found.refresh_token),
            scopes: found.scopes.clone(),
            expires_at: found.expires.map(format_rfc3339),
            refresh_expires_at: found.refresh_expires.map(format_rfc3339),
        }
    }
}

impl CredentialsFile {
    fn read(&self) -> anyhow::Result<OauthCredentials> {
        let Credentials { client_id, client_secret } =
            read(&self.application, "{\"client_id\": …, \"client_secret\": …}")?;
        Ok(OauthCredentials { client_id, client_secret: client_secret.secret() })
    }
}

impl TokenFile {
    fn read(&self) -> anyhow::Result<AccessToken> {
        let found: Tokens = read(&self.token, "{\"token\": …, \"refresh_token\": …}")?;
        let time = |text: &Option<String>| text.as_deref().and_then(parse_rfc3339);
        Ok(AccessToken {
            token: found.token.secret(),
            refresh_token: found.refresh_token.secret(),
            expires: time(&found.expires_at),
            refresh_expires: time(&found.refresh_expires_at),
            scopes: found.scopes,
        })
    }
}

/// The object in a file that is closed to others. An error quotes nothing of it.
fn read<T: DeserializeOwned>(path: &Path, form: &str) -> anyhow::Result<T> {
    let text = config::secret(Some(path), None)?;
    let read = text.and_then(|text| serde_json::from_str(text.expose()).ok());
    read.ok_or_else(|| anyhow::anyhow!("{}: expected {form}", path.display()))
}

/// The file's content.
fn text(secret: &impl Serialize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(serde_json::to_vec(secret)?);
    text.push(b'\n');
    Ok(text)
}

/// Where a secret will go: open before it is asked for.
enum Opened<'a> {
    File(&'a Path, NewFile),
    Shown,
}

impl Target {
    fn open(&self) -> anyhow::Result<Opened<'_>> {
        match &self.output_file {
            Some(path) => Ok(Opened::File(path, NewFile::create(path).map_err(on_file(path))?)),
            None => Ok(Opened::Shown),
        }
    }
}

impl Opened<'_> {
    /// Writes or prints a secret: all that was got as JSON, or `shown` of it; `known` of it
    /// is printed in any case.
    fn give(
        self,
        secret: &impl Serialize,
        shown: &[(&str, &str)],
        mut known: Value,
        plain: &Plain,
        output: &Output,
    ) -> anyhow::Result<Exit> {
        match self {
            Self::File(path, file) => {
                file.write(&text(secret)?).map_err(on_file(path))?;
                if plain.json {
                    known["file"] = json!(path);
                    output.json(&known)?;
                } else {
                    output.line(&format!("made {}", path.display()))?;
                }
            }
            Self::Shown if plain.json => output.json(secret)?,
            Self::Shown => {
                let pairs: Vec<_> = shown.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
                output.pairs(&pairs)?;
            }
        }
        Ok(Exit::Done)
    }
}

/// Runs a command of the group.
pub(super) fn run(command: OauthCommand, output: &Output) -> anyhow::Result<Exit> {
    use OauthCommand as C;
    match command {
        C::Register { name, redirect_uri, scopes, plain } => {
            register(&name, &redirect_uri, &scopes, &plain, output)
        }
        C::List(plain) => list(&plain, output),
        C::Configuration { application, target, plain } => {
            configuration(&application, &target, &plain, output)
        }
        C::RequestCode { client_id, nonce, scopes, plain } => {
            request_code(&client_id, nonce, &scopes, &plain, output)
        }
        C::RetrieveCode { request, nonce, credentials, target, plain } => {
            retrieve_code(&request, &nonce, &credentials, &target, &plain, output)
        }
        C::ObtainToken { code, credentials, target, plain } => {
            obtain_token(&code, &credentials, &target, &plain, output)
        }
        C::Refresh { token, plain } => refresh(&token, &plain, output),
        C::Scope { token, plain } => scope(&token, &plain, output),
    }
}

fn borrowed(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

fn register(
    name: &str,
    redirect_uri: &str,
    scopes: &[String],
    plain: &Plain,
    output: &Output,
) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let (client, scopes) = (&session.client, borrowed(scopes));
        let id = client.register_oauth_application(name, redirect_uri, &scopes).await?;
        done(output, plain.json, &json!({ "application": id, "name": name }), &id)
    })
}

fn list(plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let found = session.client.oauth_applications().await?;
        let columns = &["APPLICATION", "CLIENT", "CREATED", "SCOPES", "REDIRECT", "NAME"];
        let mut list = List::new(output, columns, plain.json);
        let value = |one: &OauthApplication| {
            json!({
                "application": one.id, "name": one.name, "client_id": one.client_id,
                "redirect_uri": one.redirect_uri, "scopes": one.scopes,
                "created_at": one.created.map(format_rfc3339),
            })
        };
        let row = |one: &OauthApplication| {
            let OauthApplication { id, name, client_id, redirect_uri, scopes, created } =
                one.clone();
            let scopes = Some(scopes.join(",")).filter(|scopes| !scopes.is_empty());
            let created = or_dash(created.map(format_rfc3339));
            vec![id, or_dash(client_id), created, or_dash(scopes), or_dash(redirect_uri), name]
        };
        list.add(&found, value, row)?;
        list.end("no application")?;
        Ok(Exit::Done)
    })
}

fn configuration(
    application: &str,
    target: &Target,
    plain: &Plain,
    output: &Output,
) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let target = target.open()?;
        let found = session.client.oauth_configuration(application).await?;
        let shown = [
            ("client id", found.client_id.as_str()),
            ("client secret", found.client_secret.expose()),
        ];
        let known = json!({ "application": application, "client_id": found.client_id });
        target.give(&Credentials::from(&found), &shown, known, plain, output)
    })
}

fn request_code(
    client_id: &str,
    nonce: Option<String>,
    scopes: &[String],
    plain: &Plain,
    output: &Output,
) -> anyhow::Result<Exit> {
    session::with(&plain.connect, async |session| {
        let nonce = nonce.unwrap_or_else(|| random_nonce(&session.env));
        let (client, scopes) = (&session.client, borrowed(scopes));
        let id = client.request_authorization_code(client_id, &nonce, &scopes).await?;
        if plain.json {
            output.json(&json!({ "request": id, "nonce": nonce, "client_id": client_id }))?;
        } else {
            output.pairs(&[("request", id), ("nonce", nonce)])?;
        }
        Ok(Exit::Done)
    })
}

fn random_nonce(env: &Env) -> String {
    let mut bytes = [0; 16];
    env.random.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().simple().to_string()
}

fn retrieve_code(
    request: &str,
    nonce: &str,
    credentials: &CredentialsFile,
    target: &Target,
    plain: &Plain,
    output: &Output,
) -> anyhow::Result<Exit> {
    let application = credentials.read()?;
    session::with_service(&plain.connect, async |client| {
        let target = target.open()?;
        let found = client.authorization_code(&application, request, nonce).await?;
        let known = json!({ "expires_at": found.expires.map(format_rfc3339) });
        let shown = [("code", found.code.expose())];
        target.give(&Code::from(&found), &shown, known, plain, output)
    })
}

fn obtain_token(
    code: &Path,
    credentials: &CredentialsFile,
    target: &Target,
    plain: &Plain,
    output: &Output,
) -> anyhow::Result<Exit> {
    let application = credentials.read()?;
    let Code { code, expires_at } = read(code, "{\"code\": …}")?;
    let expires = expires_at.as_deref().and_then(parse_rfc3339);
    let code = AuthorizationCode { code: code.secret(), expires };
    session::with_service(&plain.connect, async |client| {
        let target = target.open()?;
        let found = client.access_token(&application, &code).await?;
        let shown =
            [("token", found.token.expose()), ("refresh token", found.refresh_token.expose())];
        target.give(&Tokens::from(&found), &shown, known(&found), plain, output)
    })
}

/// What may be shown of a pair of tokens.
fn known(pair: &AccessToken) -> Value {
    json!({
        "scopes": pair.scopes, "expires_at": pair.expires.map(format_rfc3339),
        "refresh_expires_at": pair.refresh_expires.map(format_rfc3339),
    })
}

fn refresh(token: &TokenFile, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    let pair = token.read()?;
    let path = token.token.as_path();
    session::with_service(&plain.connect, async |client| {
        let file = Replacement::of(path).map_err(on_file(path))?;
        let found = client.refresh_access_token(&pair).await?;
        file.write(&text(&Tokens::from(&found))?).map_err(on_file(path))?;
        if plain.json {
            let mut value = known(&found);
            value["file"] = json!(path);
            output.json(&value)?;
        } else {
            output.line(&format!("replaced {}", path.display()))?;
        }
        Ok(Exit::Done)
    })
}

fn scope(token: &TokenFile, plain: &Plain, output: &Output) -> anyhow::Result<Exit> {
    let pair = token.read()?;
    session::with_service(&plain.connect, async |client| {
        let scopes = client.access_token_scopes(&pair.token).await?;
        if plain.json {
            output.json(&scopes)?;
        } else {
            scopes.iter().try_for_each(|scope| output.line(scope))?;
        }
        Ok(Exit::Done)
    })
}
