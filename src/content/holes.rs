//! Runs of zeros: what a sparse file is made of. The vault stores them as zeros like any
//! client would; the catalog remembers where they are, so that `du` and tools which seek
//! to data see the file they copied.

/// Where a run of zeros is: offset and length in bytes.
pub type Hole = (u64, u64);

/// Shortest run that counts, and the alignment of all: shorter ones are not worth a record.
pub const UNIT: usize = 64 << 10;

/// Most runs remembered for one file; beyond, the file just looks denser than it is.
pub const HOLES_MAX: usize = 1024;

/// The runs of zeros in `bytes`, which lie at `offset` (a multiple of [`UNIT`]) in the file.
pub fn find(offset: u64, bytes: &[u8]) -> Vec<Hole> {
    let mut holes = Vec::new();
    for (index, unit) in bytes.chunks(UNIT).enumerate() {
        if unit.len() == UNIT && is_zero(unit) {
            add(&mut holes, (offset + (index * UNIT) as u64, UNIT as u64));
        }
    }
    holes
}

/// The run that a range of zeros from `offset` on is, if it is long enough and begins where one
/// may.
pub fn whole(offset: u64, len: u64) -> Option<Hole> {
    let unit = UNIT as u64;
    let len = len - len % unit;
    (offset.is_multiple_of(unit) && len > 0).then_some((offset, len))
}

/// Whether all of it is zero.
pub fn is_zero(unit: &[u8]) -> bool {
    // Compared in steps that the compiler turns into vector instructions.
    unit.chunks(64).all(|step| step == &[0; 64][..step.len()])
}

/// Adds a run behind the others, joining it with the last one where they touch.
pub fn add(holes: &mut Vec<Hole>, (offset, len): Hole) {
    match holes.last_mut() {
        Some(last) if last.0 + last.1 == offset => last.1 += len,
        _ => holes.push((offset, len)),
    }
}

/// The parts of `holes` that lie in `from..to`.
pub fn within(holes: &[Hole], from: u64, to: u64) -> impl Iterator<Item = Hole> + '_ {
    holes.iter().filter_map(move |&(offset, len)| {
        let (start, end) = (offset.max(from), (offset + len).min(to));
        (start < end).then(|| (start, end - start))
    })
}

/// Whether `at` lies in a run, and where that answer may change next.
pub fn at(holes: &[Hole], at: u64) -> (bool, u64) {
    let next = holes.partition_point(|&(offset, len)| offset + len <= at);
    match holes.get(next) {
        Some(&(offset, len)) if offset <= at => (true, offset + len),
        Some(&(offset, _)) => (false, offset),
        None => (false, u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_joined_and_cut() {
        let mut bytes = vec![0; UNIT * 5 + 10];
        bytes[UNIT * 2 + 7] = 1;
        let unit = UNIT as u64;
        let holes = find(unit, &bytes);
        assert_eq!(holes, [(unit, 2 * unit), (4 * unit, 2 * unit)]);
        let cut: Vec<_> = within(&holes, 2 * unit, 5 * unit).collect();
        assert_eq!(cut, [(2 * unit, unit), (4 * unit, unit)]);
        assert_eq!(whole(unit, 2 * unit + 5), Some((unit, 2 * unit)));
        assert_eq!((whole(unit + 1, unit), whole(0, unit - 1)), (None, None));
        assert_eq!(at(&holes, 0), (false, unit));
        assert_eq!(at(&holes, unit), (true, 3 * unit));
        assert_eq!(at(&holes, 3 * unit), (false, 4 * unit));
        assert_eq!(at(&holes, 6 * unit), (false, u64::MAX));
    }
}
