//! Contents as rows of stamped cells.

use super::super::company::{CELL, Cells, Content, Stamp};
use super::super::random::mix;

/// Upper half of a cell: says that the lower half is a stamp, and of which index.
fn seal(stamp: Stamp, index: u64) -> u32 {
    (mix(u64::from(stamp) << 32 | (index & 0xffff_ffff)) >> 32) as u32 | 1
}

/// The bytes of `cells` cells from index `first` on, written by `stamp`.
pub fn bytes(stamp: Stamp, first: u64, cells: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity((cells * CELL) as usize);
    for index in first..first + cells {
        out.extend_from_slice(&stamp.to_le_bytes());
        out.extend_from_slice(&seal(stamp, index).to_le_bytes());
    }
    out
}

/// Where the bytes of a content come from; a rest that is no whole cell is alien.
pub fn content(bytes: &[u8]) -> Content {
    let mut found: Content = Vec::new();
    for (index, cell) in (0u64..).zip(bytes.chunks(CELL as usize)) {
        let next = match <[u8; CELL as usize]>::try_from(cell) {
            Ok([0, 0, 0, 0, 0, 0, 0, 0]) => Cells::Zero(1),
            Ok([a, b, c, d, e, f, g, h]) => {
                let stamp = Stamp::from_le_bytes([a, b, c, d]);
                match u32::from_le_bytes([e, f, g, h]) == seal(stamp, index) {
                    true => Cells::Of(stamp, 1),
                    false => Cells::Alien(1),
                }
            }
            Err(_) => Cells::Alien(1),
        };
        join(&mut found, next);
    }
    found
}

fn join(content: &mut Content, next: Cells) {
    match (content.last_mut(), next) {
        (Some(Cells::Zero(n)), Cells::Zero(more)) => *n += more,
        (Some(Cells::Alien(n)), Cells::Alien(more)) => *n += more,
        (Some(Cells::Of(stamp, n)), Cells::Of(other, more)) if *stamp == other => *n += more,
        _ => content.push(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_says_who_wrote_it_and_where() {
        let mut whole = bytes(7, 0, 3);
        whole.extend(vec![0; 16]);
        whole.extend(bytes(9, 5, 1));
        assert_eq!(content(&whole), [Cells::Of(7, 3), Cells::Zero(2), Cells::Of(9, 1)]);
        assert_eq!(content(&bytes(9, 4, 1)), [Cells::Alien(1)], "moved");
        whole.truncate(44);
        assert_eq!(content(&whole).last(), Some(&Cells::Alien(1)));
    }
}
