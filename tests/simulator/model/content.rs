//! Operations on contents, on the drive and on the model alike.

use std::sync::Arc;

use privicorefs::vfs::{SetAttr, Vfs, VfsError};

use super::tree::Node;
use super::{READ, WRITE, World};

/// Attempts of an fsync while the service fails.
const ATTEMPTS: usize = 5;

/// As the kernel does it when a file is closed.
async fn close(vfs: &Arc<Vfs>, fh: u64) {
    vfs.clone().flush(fh).await.unwrap();
    vfs.release(fh).unwrap();
}

/// As the kernel does it: what cannot be shared is read and written.
async fn copy(vfs: &Arc<Vfs>, from: u64, to: u64, len: u64) {
    let mut done = 0;
    while done < len {
        match vfs.share((from, done), (to, done), len) {
            Ok(count) => done += u64::from(count),
            Err(VfsError::Unsupported { .. }) => {
                let rest = vfs.clone().read(from, done, len as u32).await.unwrap();
                let read = rest.len() as u64;
                vfs.clone().write(to, done, rest).await.unwrap();
                done += read;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

impl World {
    fn bytes(&mut self, file: usize) -> &mut Vec<u8> {
        match &mut self.model.nodes[file] {
            Node::File { bytes, .. } => bytes,
            _ => panic!("not a file"),
        }
    }

    pub(super) async fn write(&mut self, file: usize, offset: u32, len: u32, byte: u8) {
        let Some((path, file)) = self.model.file(file) else { return };
        let data: Vec<u8> = (0..len).map(|i| byte.wrapping_add((i / 97) as u8)).collect();
        let vfs = self.vfs();
        let fh = vfs.open_file(self.ino(&path), WRITE).unwrap().fh;
        if vfs.try_write(fh, u64::from(offset), &data).unwrap().is_none() {
            vfs.clone().write(fh, u64::from(offset), data.clone()).await.unwrap();
        }
        close(&vfs, fh).await;
        let bytes = self.bytes(file);
        let offset = offset as usize;
        let end = offset + data.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset..end].copy_from_slice(&data);
    }

    pub(super) async fn zero(&mut self, file: usize, offset: u32, len: u32, keep: bool) {
        let Some((path, file)) = self.model.file(file) else { return };
        let (offset, len) = (offset as usize, len.max(1) as usize);
        let vfs = self.vfs();
        let fh = vfs.open_file(self.ino(&path), WRITE).unwrap().fh;
        vfs.clone().fallocate(fh, offset as u64, len as u64, keep, true).await.unwrap();
        close(&vfs, fh).await;
        let bytes = self.bytes(file);
        if !keep && bytes.len() < offset + len {
            bytes.resize(offset + len, 0);
        }
        let end = (offset + len).min(bytes.len());
        bytes[offset.min(end)..end].fill(0);
    }

    pub(super) async fn copy(&mut self, from: usize, to: usize) {
        let (Some((from_path, from)), Some((to_path, to))) =
            (self.model.file(from), self.model.file(to))
        else {
            return;
        };
        if from == to {
            return;
        }
        self.setattr(&to_path, SetAttr { size: Some(0), ..SetAttr::default() }).await;
        let vfs = self.vfs();
        let source = vfs.open_file(self.ino(&from_path), READ).unwrap().fh;
        let target = vfs.open_file(self.ino(&to_path), WRITE).unwrap().fh;
        let bytes = self.bytes(from).clone();
        copy(&vfs, source, target, bytes.len() as u64).await;
        close(&vfs, target).await;
        vfs.release(source).unwrap();
        *self.bytes(to) = bytes;
    }

    pub(super) async fn truncate(&mut self, file: usize, size: u32) {
        let Some((path, file)) = self.model.file(file) else { return };
        self.setattr(&path, SetAttr { size: Some(u64::from(size)), ..SetAttr::default() }).await;
        self.bytes(file).resize(size as usize, 0);
    }

    /// A service that fails makes fsync fail, loudly; it must then work again.
    pub(super) async fn fsync(&self, file: usize) {
        let Some((path, _)) = self.model.file(file) else { return };
        let vfs = self.vfs();
        let fh = vfs.open_file(self.ino(&path), WRITE).unwrap().fh;
        let mut synced = false;
        for _ in 0..ATTEMPTS {
            synced = synced || vfs.clone().fsync(fh, false).await.is_ok();
        }
        assert!(synced, "fsync keeps failing");
        vfs.release(fh).unwrap();
    }
}
