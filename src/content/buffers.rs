//! Large buffers that are used again: a fresh one of 16 MiB costs four thousand page faults
//! and as many cleared pages, more than sealing what it holds.
//!
//! Invariant: what waits to be used again and what is in use are together no more than the
//! pool's limit; when more is in use alone, nothing waits.

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
    /// Bytes, in use and waiting.
    limit: usize,
}

#[derive(Debug, Default)]
struct Free {
    buffers: Vec<Vec<u8>>,
    /// Bytes of those.
    waiting: usize,
    /// Bytes of large buffers that somebody has.
    in_use: usize,
    /// Whether any was taken since the last [`BufferPool::trim`].
    used: bool,
}

/// A buffer; it goes back to its pool when it is dropped.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    /// Bytes counted as in use.
    counted: usize,
    pool: Arc<BufferPool>,
}

impl BufferPool {
    /// A pool that keeps buffers as long as no more than `limit` bytes are in use and kept.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::default(), limit })
    }

    /// A buffer of `len` bytes with room for `more`. Its content is arbitrary: whatever it
    /// held before, or zeros.
    pub fn take(self: &Arc<Self>, len: usize, more: usize) -> Buffer {
        let size = len + more;
        let large = size >= POOLED_FROM;
        let kept = if large { self.free.lock().pop(size) } else { None };
        let mut bytes = kept.unwrap_or_else(|| Vec::with_capacity(size));
        let counted = if large { bytes.capacity() } else { 0 };
        if large {
            self.free.lock().lend(counted, self.limit);
        }
        bytes.resize(len, 0);
        Buffer { bytes, counted, pool: self.clone() }
    }

    /// Lets go of the buffers if none was needed since the last call.
    pub fn trim(&self) {
        let mut free = self.free.lock();
        if !std::mem::take(&mut free.used) {
            free.buffers = Vec::new();
            free.waiting = 0;
        }
    }
}

impl Free {
    /// The last of the waiting ones that is large enough; smaller ones before it go.
    fn pop(&mut self, size: usize) -> Option<Vec<u8>> {
        self.used = true;
        while let Some(buffer) = self.buffers.pop() {
            self.waiting -= buffer.capacity();
            if buffer.capacity() >= size {
                return Some(buffer);
            }
        }
        None
    }

    /// Counts `bytes` as in use, and makes room for them.
    fn lend(&mut self, bytes: usize, limit: usize) {
        self.in_use += bytes;
        while self.waiting + self.in_use > limit
            && let Some(buffer) = self.buffers.pop()
        {
            self.waiting -= buffer.capacity();
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
        if self.counted == 0 {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        let mut free = self.pool.free.lock();
        free.in_use -= self.counted;
        if free.in_use + free.waiting + bytes.capacity() <= self.pool.limit {
            free.waiting += bytes.capacity();
            free.buffers.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_buffer_is_used_again_and_a_small_one_is_not() {
        let pool = BufferPool::new(2 * POOLED_FROM);
        let first = pool.take(POOLED_FROM, 16);
        let at = first.as_ptr();
        let sent = first.into_bytes();
        drop((sent.clone(), sent));
        let again = pool.take(POOLED_FROM, 16);
        assert_eq!((again.as_ptr(), again.len()), (at, POOLED_FROM));
        assert!(again.capacity() >= POOLED_FROM + 16);
        assert_eq!(pool.free.lock().buffers.len(), 0);
        drop(pool.take(100, 0));
        assert_eq!(pool.free.lock().buffers.len(), 0);
    }

    #[test]
    fn an_idle_pool_gives_its_memory_back() {
        let pool = BufferPool::new(2 * POOLED_FROM);
        drop(pool.take(POOLED_FROM, 0));
        pool.trim();
        assert_eq!(pool.free.lock().buffers.len(), 1, "it was in use just now");
        pool.trim();
        assert_eq!(pool.free.lock().buffers.len(), 0);
    }

    #[test]
    fn no_more_waits_than_the_limit_leaves_beside_what_is_in_use() {
        let pool = BufferPool::new(4 * POOLED_FROM);
        let held = || {
            let free = pool.free.lock();
            assert_eq!(free.waiting, free.buffers.iter().map(Vec::capacity).sum::<usize>());
            (free.waiting / POOLED_FROM, free.in_use / POOLED_FROM)
        };
        let four: Vec<_> = (0..4).map(|_| pool.take(POOLED_FROM, 0)).collect();
        assert_eq!(held(), (0, 4));
        drop(four);
        assert_eq!(held(), (4, 0));
        let three = pool.take(3 * POOLED_FROM, 0); // none is large enough
        assert_eq!(held(), (0, 3));
        drop(pool.take(POOLED_FROM, 0));
        assert_eq!(held(), (1, 3));
        drop(pool.take(2 * POOLED_FROM, 0));
        assert_eq!(held(), (0, 3), "there is no room for it");
        let five = pool.take(5 * POOLED_FROM, 0);
        assert_eq!(held(), (0, 8));
        drop(five);
        assert_eq!(held(), (0, 3), "larger than the whole limit");
        drop(three);
        assert_eq!(held(), (3, 0));
    }
}
