//! Segments, and the manifests and pages of checkpoints (docs/format.md, 4).

use std::collections::BTreeMap;

use super::cbor::{Item, WrongType};
use super::payload::{Identity, Reference};

/// A payload opened, and is not of its kind's form. It counts as one that did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("opened, and is not of the form of the catalog")]
pub struct Misshapen;

impl From<WrongType> for Misshapen {
    fn from(_: WrongType) -> Self {
        Self
    }
}

/// The end of a writer's chain: its last segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// The writer.
    pub writer: u64,
    /// The segment's number.
    pub sequence: u64,
    /// The segment.
    pub reference: Reference,
}

/// A batch of records of one writer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// The writer's segment before this one.
    pub predecessor: Option<Reference>,
    /// The day of the vault's calendar, as the writer knew it.
    pub day: u64,
    /// Last segments of other writers that were applied before this one was written.
    pub ends: Vec<End>,
    /// The records, each as its own bytes.
    pub records: Vec<Vec<u8>>,
    /// When, in milliseconds since 1970, for people.
    pub millis: u64,
    /// Manifests that the writer has loaded, where that has changed.
    pub manifests: Vec<Reference>,
}

/// The members of a map, of which unknown ones are ignored.
struct Fields(BTreeMap<u64, Item>);

impl Fields {
    fn of(bytes: &[u8]) -> Result<Self, Misshapen> {
        let item = Item::decode(bytes).map_err(|_| Misshapen)?;
        Ok(Self(item.into_map()?))
    }

    fn take(&mut self, key: u64) -> Result<Item, Misshapen> {
        self.0.remove(&key).ok_or(Misshapen)
    }

    fn number(&mut self, key: u64) -> Result<u64, Misshapen> {
        Ok(self.take(key)?.into_number()?)
    }

    fn list<T>(
        &mut self,
        key: u64,
        read: impl FnMut(Item) -> Result<T, WrongType>,
    ) -> Result<Vec<T>, Misshapen> {
        Ok(self.take(key)?.into_list(read)?)
    }
}

fn map(members: impl IntoIterator<Item = (u64, Item)>) -> Vec<u8> {
    Item::Map(members.into_iter().collect()).encode()
}

fn list<T>(values: &[T], item: impl Fn(&T) -> Item) -> Item {
    Item::Array(values.iter().map(item).collect())
}

fn writer_of(item: Item) -> Result<u64, WrongType> {
    item.into_unsigned().and_then(|writer| if writer == 0 { Err(WrongType) } else { Ok(writer) })
}

impl Segment {
    /// The content to seal.
    pub fn encode(&self) -> Vec<u8> {
        let end = |end: &End| {
            let numbers = [Item::Unsigned(end.writer), Item::Unsigned(end.sequence)];
            Item::Array([&numbers[..], &[end.reference.to_item()]].concat())
        };
        map([
            (1, self.predecessor.as_ref().map_or(Item::Null, Reference::to_item)),
            (2, Item::Unsigned(self.day)),
            (3, list(&self.ends, end)),
            (4, list(&self.records, |record| Item::Bytes(record.clone()))),
            (5, Item::Unsigned(self.millis)),
            (6, list(&self.manifests, Reference::to_item)),
        ])
    }

    /// Reads an opened content.
    pub fn decode(content: &[u8]) -> Result<Self, Misshapen> {
        let mut fields = Fields::of(content)?;
        Ok(Self {
            predecessor: fields.take(1)?.into_option(Reference::from_item)?,
            day: fields.number(2)?,
            ends: fields.list(3, |item| {
                let [writer, sequence, reference] = item.into_row()?;
                Ok(End {
                    writer: writer_of(writer)?,
                    sequence: sequence.into_number()?,
                    reference: Reference::from_item(reference)?,
                })
            })?,
            records: fields.list(4, Item::into_bytes)?,
            millis: fields.number(5)?,
            manifests: fields.list(6, Reference::from_item)?,
        })
    }
}

/// The end of a chain that a checkpoint covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Covered {
    /// The writer.
    pub writer: u64,
    /// The number of its last segment.
    pub sequence: u64,
    /// That segment.
    pub identity: Identity,
    /// The day it named.
    pub day: u64,
    /// Whether the writer has ended.
    pub closed: bool,
}

/// A moment of the vault: a day, and the ends of that day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The day.
    pub day: u64,
    /// Writer, number and identity of each end.
    pub ends: Vec<(u64, u64, Identity)>,
}

impl Step {
    fn to_item(&self) -> Item {
        let end = |(writer, sequence, identity): &(u64, u64, Identity)| {
            let numbers = [Item::Unsigned(*writer), Item::Unsigned(*sequence)];
            Item::Array([&numbers[..], &[identity.to_item()]].concat())
        };
        Item::Array(vec![Item::Unsigned(self.day), list(&self.ends, end)])
    }

    fn from_item(item: Item) -> Result<Self, WrongType> {
        let [day, ends] = item.into_row()?;
        let ends = ends.into_list(|item| {
            let [writer, sequence, identity] = item.into_row()?;
            Ok((writer_of(writer)?, sequence.into_number()?, Identity::from_item(identity)?))
        })?;
        Ok(Self { day: day.into_number()?, ends })
    }
}

/// What a checkpoint is of, and where its pages are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The vault.
    pub vault: [u8; 16],
    /// The day of the vault's calendar.
    pub day: u64,
    /// The ends that it covers.
    pub covers: Vec<Covered>,
    /// Segments and manifests that need not be read by who reads this.
    pub replaces: Vec<Reference>,
    /// Its pages, in order.
    pub pages: Vec<Reference>,
    /// The horizon: what is before it has been forgotten.
    pub horizon: Step,
    /// Later moments, of which one is the next horizon.
    pub steps: Vec<Step>,
    /// Bytes of all pages as stored.
    pub weight: u64,
    /// Identities that were given up and are not in it.
    pub missing: Vec<Identity>,
    /// How many names there are, for people.
    pub names: u64,
}

impl Manifest {
    /// The content to seal.
    pub fn encode(&self) -> Vec<u8> {
        let covered = |end: &Covered| {
            Item::Array(vec![
                Item::Unsigned(end.writer),
                Item::Unsigned(end.sequence),
                end.identity.to_item(),
                Item::Unsigned(end.day),
                Item::Bool(end.closed),
            ])
        };
        map([
            (1, Item::Bytes(self.vault.to_vec())),
            (2, Item::Unsigned(self.day)),
            (3, list(&self.covers, covered)),
            (4, list(&self.replaces, Reference::to_item)),
            (5, list(&self.pages, Reference::to_item)),
            (6, self.horizon.to_item()),
            (7, list(&self.steps, Step::to_item)),
            (8, Item::Unsigned(self.weight)),
            (9, list(&self.missing, |identity| identity.to_item())),
            (10, Item::Unsigned(self.names)),
        ])
    }

    /// Reads an opened content.
    pub fn decode(content: &[u8]) -> Result<Self, Misshapen> {
        let mut fields = Fields::of(content)?;
        Ok(Self {
            vault: fields.take(1)?.into_fixed()?,
            day: fields.number(2)?,
            covers: fields.list(3, |item| {
                let [writer, sequence, identity, day, closed] = item.into_row()?;
                Ok(Covered {
                    writer: writer_of(writer)?,
                    sequence: sequence.into_number()?,
                    identity: Identity::from_item(identity)?,
                    day: day.into_number()?,
                    closed: closed.into_bool()?,
                })
            })?,
            replaces: fields.list(4, Reference::from_item)?,
            pages: fields.list(5, Reference::from_item)?,
            horizon: Step::from_item(fields.take(6)?)?,
            steps: fields.list(7, Step::from_item)?,
            weight: fields.number(8)?,
            missing: fields.list(9, Identity::from_item)?,
            names: fields.number(10)?,
        })
    }
}

/// A record in a checkpoint: as it came, and with which segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Brought {
    /// The writer of the segment that brought it first.
    pub writer: u64,
    /// That segment's number.
    pub sequence: u64,
    /// The day that it named.
    pub day: u64,
    /// The record.
    pub record: Vec<u8>,
}

/// One page of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Its records.
    pub records: Vec<Brought>,
}

impl Page {
    /// The content to seal.
    pub fn encode(&self) -> Vec<u8> {
        let brought = |brought: &Brought| {
            Item::Array(vec![
                Item::Unsigned(brought.writer),
                Item::Unsigned(brought.sequence),
                Item::Unsigned(brought.day),
                Item::Bytes(brought.record.clone()),
            ])
        };
        map([(1, list(&self.records, brought))])
    }

    /// Reads an opened content.
    pub fn decode(content: &[u8]) -> Result<Self, Misshapen> {
        let mut fields = Fields::of(content)?;
        let records = fields.list(1, |item| {
            let [writer, sequence, day, record] = item.into_row()?;
            Ok(Brought {
                writer: writer_of(writer)?,
                sequence: sequence.into_number()?,
                day: day.into_number()?,
                record: record.into_bytes()?,
            })
        })?;
        Ok(Self { records })
    }
}
