//! `token put` and `token get`: content, sealed on its way up, verified on its way down.
//!
//! What comes down is kept sealed, in memory or in a file without a name, until it is whole
//! and verified; only then is a byte of it given out. A file is written beside its place and
//! then takes its name.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal, Read, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use clap::{Args, ValueHint};
use futures_util::{StreamExt, stream};
use serde_json::json;

use super::Exit;
use super::output::Output;
use super::progress::Meter;
use super::report::on_file;
use super::session::{self, Plain, Session};
use crate::catalog::format::part_list::{PartList, part_len};
use crate::crypto::{
    CatalogKeys, CryptoError, IV_LEN, IdentityOf, OVERHEAD, PayloadCipher, StreamSealer, sealed_len,
};
use crate::env::Env;
use crate::protocol::INLINE_CLIENT_LIMIT;
use crate::store::{Download, FileMeta, Payload, Store, StoreResult, Token};

/// Larger content is not held in memory. A part list of the drive always is smaller.
const IN_MEMORY: u64 = 32 << 20;
/// Bytes sealed, or opened, at a time.
const PIECE: usize = 256 << 10;

#[derive(Args, Debug)]
pub(super) struct GetArgs {
    /// The token
    #[arg(value_name = "TOKEN")]
    token: String,
    /// Write to this file instead of standard output
    #[arg(short = 'o', long = "output", value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// Leave the payload sealed; needs no key
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    plain: Plain,
}

#[derive(Args, Debug)]
pub(super) struct PutArgs {
    /// The file
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// File name, as the service shows it [default: that of FILE]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Context: for the drive, the folder's path without a leading slash
    #[arg(long, value_name = "CONTEXT", default_value = "/")]
    context: String,
    /// Extension, without the dot [default: that of the name]
    #[arg(long, value_name = "EXTENSION")]
    extension: Option<String>,
    /// Type of the data; for files up to 35,972 bytes, because the service has no call for others
    #[arg(long = "type", value_name = "TYPE")]
    data_type: Option<String>,
    #[command(flatten)]
    plain: Plain,
}

/// Stores a file, and prints its token.
pub(super) fn put(args: &PutArgs, output: &Output) -> anyhow::Result<Exit> {
    session::with(&args.plain.connect, async |session| {
        let cipher = session.cipher()?;
        let file = File::open(&args.file).map_err(on_file(&args.file))?;
        let status = file.metadata().map_err(on_file(&args.file))?;
        anyhow::ensure!(status.is_file(), "{}: not a regular file", args.file.display());
        let size = status.len();
        if args.data_type.is_some() && sealed_len(size) > INLINE_CLIENT_LIMIT as u64 {
            let most = INLINE_CLIENT_LIMIT - OVERHEAD;
            anyhow::bail!("--type: {} is larger than {most} bytes", args.file.display());
        }
        let meta = file_meta(args, size);
        let meter = Meter::new(output, &args.file.display().to_string(), Some(sealed_len(size)));
        let payload = seal(file, size, cipher, meter).map_err(on_file(&args.file))?;
        let token = match (&args.data_type, payload) {
            (Some(data_type), Payload::Bytes(sealed)) => {
                put_typed(session, &meta, data_type, sealed).await?
            }
            (_, payload) => session.store().put(&meta, &mark(&session.env), payload).await?,
        };
        if args.plain.json {
            let name = &meta.file_name;
            output.json(&json!({ "token": token.as_str(), "file_name": name, "size": size }))?;
        } else {
            output.line(token.as_str())?;
        }
        Ok(Exit::Done)
    })
}

fn file_meta(args: &PutArgs, size: u64) -> FileMeta {
    let own = || args.file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file_name = args.name.clone().unwrap_or_else(own);
    let of_name = || match file_name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => extension.to_owned(),
        _ => String::new(),
    };
    let extension = args.extension.clone().unwrap_or_else(of_name);
    FileMeta { file_name, extension, context: args.context.clone(), path: "/".to_owned(), size }
}

/// A type can only be given to a token that is there: all or nothing all the same.
async fn put_typed(
    session: &Session,
    meta: &FileMeta,
    data_type: &str,
    sealed: Bytes,
) -> StoreResult<Token> {
    let store = session.store();
    let token = store.put(meta, &mark(&session.env), Payload::Bytes(sealed.clone())).await?;
    match session.client.replace(&token, meta, data_type, &sealed).await {
        Ok(()) => Ok(token),
        Err(error) => {
            if let Err(error) = store.delete(&token).await {
                tracing::warn!(%token, %error, "what was stored could not be deleted again");
            }
            Err(error)
        }
    }
}

/// What tells this put from others, should its outcome be in doubt.
fn mark(env: &Env) -> String {
    let mut bytes = [0; 16];
    env.random.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// The sealed form: whole, or made anew (with another IV) for every attempt.
fn seal(mut file: File, size: u64, cipher: PayloadCipher, meter: Meter) -> io::Result<Payload> {
    if size <= IN_MEMORY {
        let mut buffer = Vec::with_capacity(usize::try_from(sealed_len(size)).unwrap_or(0));
        buffer.resize(IV_LEN, 0);
        file.read_to_end(&mut buffer)?;
        if (buffer.len() - IV_LEN) as u64 != size {
            return Err(io::Error::other("it changed while it was read"));
        }
        cipher.seal_in_place(&mut buffer);
        return Ok(Payload::Bytes(buffer.into()));
    }
    let (file, cipher) = (Arc::new(file), Arc::new(cipher));
    let open = move || {
        let (file, sealer) = (Arc::clone(&file), cipher.stream_sealer());
        meter.restart();
        let meter = meter.clone();
        stream::try_unfold((file, Some(sealer), 0), move |(file, sealer, from)| {
            let meter = meter.clone();
            async move {
                let Some(sealer) = sealer else { return Ok(None) };
                let (out, sealer, to) = sealed_piece(&file, sealer, from)?;
                meter.add(out.len());
                Ok(Some((Bytes::from(out), (file, sealer, to))))
            }
        })
        .boxed()
    };
    Ok(Payload::Stream { len: sealed_len(size), open: Arc::new(open) })
}

/// The sealed form of the next piece, and where the one after it begins; the end of the
/// file brings the tag.
fn sealed_piece(
    file: &File,
    mut sealer: StreamSealer,
    from: u64,
) -> io::Result<(Vec<u8>, Option<StreamSealer>, u64)> {
    let mut plain = vec![0; PIECE];
    let read = file.read_at(&mut plain, from)?;
    let mut out = Vec::with_capacity(read + OVERHEAD);
    if read == 0 {
        sealer.finish(&mut out);
        return Ok((out, None, from));
    }
    sealer.push(&plain[..read], &mut out).map_err(io::Error::other)?;
    Ok((out, Some(sealer), from + read as u64))
}

/// Fetches a payload, and opens it unless it is to stay sealed.
pub(super) fn get(args: &GetArgs, output: &Output) -> anyhow::Result<Exit> {
    session::with(&args.plain.connect, async |session| {
        let keys = if args.raw { None } else { Some(session.opening_keys()?) };
        let mut target = Target::new(args.file.as_deref(), output)?;
        fetch(session, &Token::new(&args.token), keys.as_ref(), &mut target).await?;
        let size = target.finish()?;
        match &args.file {
            Some(_) if args.plain.json => {
                output.json(&json!({ "token": args.token, "size": size }))?;
            }
            Some(file) => output.note(&format!("wrote {size} bytes to {}", file.display())),
            None => {}
        }
        Ok(Exit::Done)
    })
}

async fn fetch(
    session: &Session,
    token: &Token,
    keys: Option<&(PayloadCipher, CatalogKeys)>,
    target: &mut Target<'_>,
) -> anyhow::Result<()> {
    let store = session.store();
    let meter = target.meter(token);
    let download = store.get(token).await?;
    if let Some(len) = download.len {
        meter.set_whole(len);
    }
    let (sealed, _) = Spool::of(download, &meter).await?;
    let Some((cipher, keys)) = keys else { return sealed.each(|piece| target.write(piece)) };
    let plain = match sealed {
        Spool::Memory(sealed) => cipher.open(&sealed).map_err(unreadable(token))?,
        Spool::Disk(_) => return sealed.open(cipher, token, target).map(drop),
    };
    // What looks like a part list and is none is a file like any other.
    let Ok(list) = PartList::from_json(&plain, keys) else { return target.write(&plain) };
    meter.restart();
    meter.set_whole(list.parts.iter().flatten().map(|part| part.identity.len).sum());
    for (index, part) in (0..).zip(&list.parts) {
        let expected = part_len(list.size, list.part_size, index);
        let Some(part) = part else {
            target.write_zeros(expected)?;
            continue;
        };
        let token = &part.token;
        let (sealed, of) = Spool::of(store.get(token).await?, &meter).await?;
        let same = of.finish(cipher.key_id()) == Some(part.identity);
        anyhow::ensure!(same, "{token}: not the part that was stored there");
        let found = sealed.open(cipher, token, target)?;
        anyhow::ensure!(found == expected, "{token}: {found} bytes, where {expected} belong");
    }
    Ok(())
}

fn unreadable(token: &Token) -> impl Fn(CryptoError) -> anyhow::Error {
    move |error| anyhow::anyhow!("{token}: {error}")
}

/// A sealed payload, whole.
enum Spool {
    Memory(Vec<u8>),
    Disk(File),
}

impl Spool {
    /// Takes a download in, and notes what it is.
    async fn of(download: Download, meter: &Meter) -> anyhow::Result<(Self, IdentityOf)> {
        let (mut memory, mut identity) = (Vec::new(), IdentityOf::default());
        let mut disk = None;
        let mut stream = download.stream;
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            meter.add(piece.len());
            identity.push(&piece);
            if disk.is_none() && (memory.len() + piece.len()) as u64 > IN_MEMORY {
                let mut file = nameless()?;
                file.write_all(&std::mem::take(&mut memory))?;
                disk = Some(file);
            }
            match &mut disk {
                Some(file) => file.write_all(&piece)?,
                None => memory.extend_from_slice(&piece),
            }
        }
        Ok((disk.map_or(Self::Memory(memory), Self::Disk), identity))
    }

    /// Every piece in order.
    fn each(&self, mut take: impl FnMut(&[u8]) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut file = match self {
            Self::Memory(bytes) => return take(bytes),
            Self::Disk(file) => file,
        };
        file.rewind()?;
        let mut piece = vec![0; PIECE];
        loop {
            match file.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(read) => take(&piece[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Verifies all of it, and only then writes its content; how many bytes that were.
    fn open(
        &self,
        cipher: &PayloadCipher,
        token: &Token,
        target: &mut Target<'_>,
    ) -> anyhow::Result<u64> {
        let before = target.written;
        if let Self::Memory(sealed) = self {
            target.write(&cipher.open(sealed).map_err(unreadable(token))?)?;
            return Ok(target.written - before);
        }
        for verified in [false, true] {
            let mut opener = cipher.stream_opener();
            let mut plain = Vec::with_capacity(PIECE);
            self.each(|piece| {
                plain.clear();
                opener.push(piece, &mut plain).map_err(unreadable(token))?;
                if verified { target.write(&plain) } else { Ok(()) }
            })?;
            opener.finish().map_err(unreadable(token))?;
        }
        Ok(target.written - before)
    }
}

/// A temporary file that nobody else can open, and that ends with the process.
fn nameless() -> anyhow::Result<File> {
    let dir = std::env::temp_dir();
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let flags = rustix::fs::OFlags::TMPFILE.bits();
    let unnamed = options.clone().custom_flags(i32::try_from(flags).unwrap_or(0)).open(&dir);
    // not every file system has files without names
    let file = unnamed.or_else(|_| {
        let path =
            dir.join(format!(".privicorefs-{}-{}", std::process::id(), mark(&Env::system())));
        let file = options.create_new(true).open(&path)?;
        fs::remove_file(&path)?;
        Ok(file)
    });
    file.map_err(on_file(&dir))
}

/// Where the result goes.
struct Target<'a> {
    output: &'a Output,
    file: Option<(File, PathBuf)>,
    /// The file beside, until it has taken its name.
    beside: Option<PathBuf>,
    written: u64,
}

impl<'a> Target<'a> {
    fn new(path: Option<&Path>, output: &'a Output) -> anyhow::Result<Self> {
        let mut target = Self { output, file: None, beside: None, written: 0 };
        let Some(path) = path else { return Ok(target) };
        // Written in place: a pipe, a device.
        let special = fs::metadata(path).is_ok_and(|found| !found.is_file());
        let file = if special {
            OpenOptions::new().write(true).open(path).map_err(on_file(path))?
        } else {
            let mut name = std::ffi::OsString::from(".");
            name.push(path.file_name().unwrap_or_default());
            name.push(format!(".{}.new", std::process::id()));
            let beside = path.with_file_name(name);
            let file = OpenOptions::new().write(true).create_new(true).open(&beside);
            let file = file.map_err(on_file(path))?;
            target.beside = Some(beside);
            file
        };
        target.file = Some((file, path.to_owned()));
        Ok(target)
    }

    /// How a payload's progress on its way here is shown: not between the content's lines.
    fn meter(&self, token: &Token) -> Meter {
        match self.file.is_none() && io::stdout().is_terminal() {
            true => Meter::hidden(),
            false => Meter::new(self.output, token.as_str(), None),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        match &mut self.file {
            Some((file, path)) => file.write_all(bytes).map_err(on_file(path))?,
            None => self.output.bytes(bytes)?,
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// A part of zeros, which is not stored.
    fn write_zeros(&mut self, len: u64) -> anyhow::Result<()> {
        let piece = vec![0; PIECE];
        let mut left = len;
        while left > 0 {
            let some = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
            self.write(&piece[..some])?;
            left -= some as u64;
        }
        Ok(())
    }

    /// Gives the file its name; how many bytes there are.
    fn finish(mut self) -> anyhow::Result<u64> {
        if let (Some(beside), Some((_, path))) = (&self.beside, &self.file) {
            fs::rename(beside, path).map_err(on_file(path))?;
            self.beside = None;
        }
        Ok(self.written)
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        if let Some(beside) = &self.beside {
            let _ = fs::remove_file(beside);
        }
    }
}
