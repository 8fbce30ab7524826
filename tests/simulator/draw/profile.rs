//! What kinds of things the scripts of a seed are drawn from.

/// What a script may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: &'static str,
    /// Machines at the beginning: at least, and so many choices from there on.
    pub machines: (u64, u64),
    /// Kinds of fates and of behaviours of the service.
    pub kinds: Vec<&'static str>,
    /// Only these kinds of fates and lies, if any are named.
    pub only: Vec<String>,
    /// None of these.
    pub without: Vec<String>,
    /// Power cuts take disk and local database at one common moment.
    pub together: bool,
    /// Another client takes part.
    pub others: bool,
}

/// What an honest service may do.
const FAILING: [&str; 7] =
    ["slow", "down", "lost-ack", "lands-late", "fail-puts", "fail-gets", "lag"];
/// Fates of one machine that loses nothing.
const EVERYDAY: [&str; 3] = ["kill", "unmount", "lose-cache"];
/// Fates that people call accidents.
const ACCIDENTS: [&str; 7] =
    ["power-cut", "restore", "set-back", "duplicate", "lose", "away", "clock"];
/// Lies.
const LIES: [&str; 17] = [
    "service-clock",
    "swap",
    "replay",
    "cut",
    "roll-back",
    "withhold",
    "copy-as",
    "duplicate-entries",
    "reorder",
    "wrong-page",
    "short-page",
    "shift",
    "no-sizes",
    "year",
    "entry",
    "answer",
    "erase",
];

impl Profile {
    /// One of `quiet`, `machines`, `fates`, `lies`, `all`.
    pub fn named(name: &str) -> Option<Self> {
        let profile = |name, machines, groups: &[&[&'static str]], others| Self {
            name,
            machines,
            kinds: groups.concat(),
            only: Vec::new(),
            without: Vec::new(),
            together: false,
            others,
        };
        Some(match name {
            "quiet" => profile("quiet", (1, 1), &[&EVERYDAY, &FAILING], false),
            "machines" => profile("machines", (2, 3), &[&EVERYDAY, &FAILING, &["away"]], true),
            "fates" => profile("fates", (2, 3), &[&EVERYDAY, &FAILING, &ACCIDENTS], true),
            "lies" => profile("lies", (1, 3), &[&EVERYDAY, &LIES], true),
            "all" => profile("all", (2, 4), &[&EVERYDAY, &FAILING, &ACCIDENTS, &LIES], true),
            _ => return None,
        })
    }

    /// Whether `only` and `without` name kinds of this profile: a name that chooses nothing
    /// would leave scripts without what they are run for.
    pub fn check(&self) -> Result<(), String> {
        let mut named = self.only.iter().chain(&self.without);
        match named.find(|name| !self.kinds.contains(&name.as_str())) {
            Some(name) => {
                let kinds = self.kinds.join(", ");
                Err(format!("profile {} has no kind {name:?} (but {kinds})", self.name))
            }
            None => Ok(()),
        }
    }

    /// The kinds that are chosen.
    pub fn allowed(&self) -> Vec<&'static str> {
        let named = |list: &[String], kind: &str| list.iter().any(|name| name == kind);
        let kinds = self.kinds.iter().copied();
        let kinds = kinds.filter(|kind| self.only.is_empty() || named(&self.only, kind));
        kinds.filter(|kind| !named(&self.without, kind)).collect()
    }
}
