//! Large buffers that are used again: a fresh one of 16 MiB costs four thousand page faults
//! and as many cleared pages, more than sealing what it holds.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Smaller ones are left to the allocator.
const POOLED_FROM: usize = 4 << 20;

/// Buffers that wait to be used again.
#[derive(Debug)]
pub struct BufferPool {
    free: Mutex<Free>,
    most: usize,
}

#[derive(Debug, Default)]
struct Free {
    buffers: Vec<Vec<u8>>,
    /// Whether any was taken since the last [`BufferPool::trim`].
    used: bool,
}

/// A buffer; it goes back to its pool when it is dropped.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    pool: Arc<BufferPool>,
}

impl BufferPool {
    /// A pool that keeps at most `most` buffers.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::default(), most })
    }

    /// A buffer of `len` bytes with room for `more`. Its content is arbitrary: whatever it
    /// held before, or zeros.
    pub fn take(self: &Arc<Self>, len: usize, more: usize) -> Buffer {
        let mut bytes = Vec::new();
        if len >= POOLED_FROM {
            let mut free = self.free.lock();
            free.used = true;
            bytes = free.buffers.pop().unwrap_or_default();
        }
        if bytes.capacity() < len + more {
            bytes = Vec::with_capacity(len + more);
        }
        bytes.resize(len, 0);
        Buffer { bytes, pool: self.clone() }
    }

    /// Lets go of the buffers if none was needed since the last call.
    pub fn trim(&self) {
        let mut free = self.free.lock();
        if !std::mem::take(&mut free.used) {
            free.buffers = Vec::new();
        }
    }
}

impl Buffer {
    /// The buffer as a payload; it goes back to its pool when the last copy is dropped.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.capacity() < POOLED_FROM {
            return;
        }
        let mut free = self.pool.free.lock();
        if free.buffers.len() < self.pool.most {
            free.buffers.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_buffer_is_used_again_and_a_small_one_is_not() {
        let pool = BufferPool::new(1);
        let (first, second) = (pool.take(POOLED_FROM, 16), pool.take(POOLED_FROM, 16));
        let at = first.as_ptr();
        let sent = first.into_bytes();
        drop((sent.clone(), sent));
        drop(second); // one too many
        let again = pool.take(POOLED_FROM - 1 + 1, 16);
        assert_eq!((again.as_ptr(), again.len()), (at, POOLED_FROM));
        assert!(again.capacity() >= POOLED_FROM + 16);
        assert_eq!(pool.free.lock().buffers.len(), 0);
        drop(pool.take(100, 0));
        assert_eq!(pool.free.lock().buffers.len(), 0);
    }

    #[test]
    fn an_idle_pool_gives_its_memory_back() {
        let pool = BufferPool::new(4);
        drop(pool.take(POOLED_FROM, 0));
        pool.trim();
        assert_eq!(pool.free.lock().buffers.len(), 1, "it was in use just now");
        pool.trim();
        assert_eq!(pool.free.lock().buffers.len(), 0);
    }
}
