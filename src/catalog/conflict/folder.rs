//! One folder: where it would stand (docs/format.md, 8.4).

use super::object::Object;
use crate::catalog::format::Stamp;
use crate::catalog::format::record::Name;

/// The one place of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// When it came there.
    pub stamp: Stamp,
    /// Whether all its links were removed: it lives only as long as something in it does.
    pub again: bool,
    /// The link, with the folder above and the name.
    pub name: Name,
}

impl Object {
    /// Where a folder stands: of its links that were not removed the latest, else the one that
    /// was removed last.
    pub fn candidate(&self) -> Option<Candidate> {
        let of = |link: u64, again| {
            let held = self.names.get(&link)?;
            Some(Candidate { stamp: held.stamp, again, name: held.value.clone() })
        };
        let standing = self.names.iter().filter(|(link, _)| !self.is_removed(**link));
        if let Some((stamp, link)) = standing.clone().map(|(link, name)| (name.stamp, *link)).max()
        {
            // Links of one place are one, of the least rank.
            let place = |name: &Name| (name.folder, name.name.clone());
            let here = place(&self.names[&link].value);
            let same = standing.filter(|(_, held)| place(&held.value) == here);
            let (_, least) = same.map(|(link, held)| (held.value.rank, *link)).min()?;
            return of(least, false).map(|candidate| Candidate { stamp, ..candidate });
        }
        of(self.last_removed()?, true)
    }
}
