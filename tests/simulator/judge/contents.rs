//! What contents become by what is done to them.

use super::super::company::{Act, Cells, Content, Stamp};

/// Cells of a content.
pub fn len(content: &Content) -> u32 {
    content.iter().map(count).sum()
}

fn count(run: &Cells) -> u32 {
    match run {
        Cells::Zero(n) | Cells::Of(_, n) | Cells::Alien(n) => *n,
    }
}

fn with_count(run: &Cells, n: u32) -> Cells {
    match run {
        Cells::Zero(_) => Cells::Zero(n),
        Cells::Of(stamp, _) => Cells::Of(*stamp, n),
        Cells::Alien(_) => Cells::Alien(n),
    }
}

/// The cells from `from` on, `cells` of them, or what there is.
fn slice(content: &Content, from: u32, cells: u32) -> Content {
    let (mut at, mut out) = (0, Content::new());
    let end = from.saturating_add(cells);
    for run in content {
        let n = count(run);
        let (first, last) = (from.max(at), end.min(at + n));
        if first < last {
            out.push(with_count(run, last - first));
        }
        at += n;
    }
    out
}

fn joined(parts: &[Content]) -> Content {
    let mut out = Content::new();
    for run in parts.iter().flatten() {
        match (out.last_mut(), run) {
            (Some(Cells::Zero(n)), Cells::Zero(more))
            | (Some(Cells::Alien(n)), Cells::Alien(more)) => *n += more,
            (Some(Cells::Of(a, n)), Cells::Of(b, more)) if a == b => *n += more,
            _ => out.push(*run),
        }
    }
    out
}

fn overwritten(content: &Content, from: u32, with: Cells) -> Content {
    let (old, cells) = (len(content), count(&with));
    let gap = if old < from { vec![Cells::Zero(from - old)] } else { Vec::new() };
    let behind = from + cells;
    let rest = slice(content, behind, old.saturating_sub(behind));
    joined(&[slice(content, 0, from), gap, vec![with], rest])
}

fn sized(content: &Content, size: u32) -> Content {
    let old = len(content);
    match old < size {
        true => joined(&[content.clone(), vec![Cells::Zero(size - old)]]),
        false => slice(content, 0, size),
    }
}

/// What an act makes of a content (and of its source, for a clone).
pub fn apply(act: &Act, stamp: Stamp, base: &Content, source: &Content) -> Option<Content> {
    Some(match act {
        Act::Write { size, .. } | Act::Save { size, .. } => whole(stamp, *size),
        Act::Edit { from, cells, size, .. } | Act::WriteSlot { from, cells, size, .. } => {
            sized(&overwritten(base, *from, Cells::Of(stamp, *cells)), *size)
        }
        Act::Truncate { size, .. } => sized(base, *size),
        Act::Punch { from, cells, size, .. } => {
            let end = len(base).min(from.saturating_add((*cells).max(1)));
            let punched = match end.checked_sub(*from).filter(|n| *n > 0) {
                Some(n) => overwritten(base, *from, Cells::Zero(n)),
                None => base.clone(),
            };
            sized(&joined(&[punched]), *size)
        }
        Act::Clone { size, .. } => sized(source, *size),
        _ => return None,
    })
}

/// A content written by one step.
pub fn whole(stamp: Stamp, size: u32) -> Content {
    if size == 0 { Content::new() } else { vec![Cells::Of(stamp, size)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(from: u32, cells: u32, size: u32) -> Act {
        Act::Edit { at: String::new(), from, cells, size }
    }

    #[test]
    fn edits_overwrite_extend_and_cut() {
        use Cells::{Of, Zero};
        let base = whole(1, 10);
        let none = Content::new();
        assert_eq!(apply(&edit(4, 2, 9), 2, &base, &none).unwrap(), [Of(1, 4), Of(2, 2), Of(1, 3)]);
        assert_eq!(
            apply(&edit(12, 2, 15), 2, &base, &none).unwrap(),
            [Of(1, 10), Zero(2), Of(2, 2), Zero(1)]
        );
        assert_eq!(apply(&edit(0, 2, 1), 2, &none, &none).unwrap(), [Of(2, 1)]);
        let punch = Act::Punch { at: String::new(), from: 8, cells: 5, size: 11 };
        assert_eq!(apply(&punch, 3, &base, &none).unwrap(), [Of(1, 8), Zero(3)]);
    }
}
