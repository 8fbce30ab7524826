//! CBOR (RFC 8949) as the catalog uses it: deterministically encoded, of a few types
//! (docs/format.md, 2.3).

use std::collections::BTreeMap;

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

/// Deepest nesting.
const DEPTH: usize = 16;

/// Items that a payload of `bytes` bytes may hold: each takes memory of its own, and no sensible
/// payload is made of single bytes.
fn budget(bytes: usize) -> usize {
    1024 + bytes / 2
}

/// One item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// A number from 0 on.
    Unsigned(u64),
    /// A number below 0.
    Negative(i64),
    /// A byte string.
    Bytes(Vec<u8>),
    /// A text string.
    Text(String),
    /// An array.
    Array(Vec<Item>),
    /// A map with unsigned keys.
    Map(BTreeMap<u64, Item>),
    /// `false` or `true`.
    Bool(bool),
    /// `null`.
    Null,
}

/// Bytes are not one item in its one encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not deterministically encoded CBOR of the types that the catalog uses")]
pub struct NotCbor;

impl From<minicbor::decode::Error> for NotCbor {
    fn from(_: minicbor::decode::Error) -> Self {
        Self
    }
}

impl Item {
    /// The item that `bytes` are, and nothing after it.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotCbor> {
        let mut decoder = Decoder::new(bytes);
        let mut left = budget(bytes.len());
        let item = read(&mut decoder, DEPTH, &mut left)?;
        // There is one encoding: what reads differently, or goes on, is none.
        if item.encode() == bytes { Ok(item) } else { Err(NotCbor) }
    }

    /// Its one encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new());
        // A vector takes everything.
        let _: Result<(), minicbor::encode::Error<std::convert::Infallible>> =
            write(self, &mut encoder);
        encoder.into_writer()
    }

    /// A signed number.
    pub fn signed(value: i64) -> Self {
        u64::try_from(value).map_or(Self::Negative(value), Self::Unsigned)
    }

    /// A text, or `null`.
    pub fn text(value: impl Into<String>) -> Self {
        Self::Text(value.into())
    }
}

fn read(decoder: &mut Decoder<'_>, depth: usize, left: &mut usize) -> Result<Item, NotCbor> {
    if depth == 0 || *left == 0 {
        return Err(NotCbor);
    }
    *left -= 1;
    Ok(match decoder.datatype()? {
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => Item::Unsigned(decoder.u64()?),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => Item::Negative(decoder.i64()?),
        Type::Bytes => Item::Bytes(decoder.bytes()?.to_vec()),
        Type::String => Item::Text(decoder.str()?.to_owned()),
        Type::Bool => Item::Bool(decoder.bool()?),
        Type::Null => {
            decoder.null()?;
            Item::Null
        }
        Type::Array => {
            let count = decoder.array()?.ok_or(NotCbor)?;
            // Not reserved: the count is only a claim.
            let mut items = Vec::new();
            for _ in 0..count {
                items.push(read(decoder, depth - 1, left)?);
            }
            Item::Array(items)
        }
        Type::Map => {
            let count = decoder.map()?.ok_or(NotCbor)?;
            let mut members = BTreeMap::new();
            for _ in 0..count {
                let key = decoder.u64()?;
                members.insert(key, read(decoder, depth - 1, left)?);
            }
            Item::Map(members)
        }
        _ => return Err(NotCbor),
    })
}

fn write<W: minicbor::encode::Write>(
    item: &Item,
    encoder: &mut Encoder<W>,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    match item {
        Item::Unsigned(value) => encoder.u64(*value)?,
        Item::Negative(value) => encoder.i64(*value)?,
        Item::Bytes(bytes) => encoder.bytes(bytes)?,
        Item::Text(text) => encoder.str(text)?,
        Item::Bool(value) => encoder.bool(*value)?,
        Item::Null => encoder.null()?,
        Item::Array(items) => {
            encoder.array(items.len() as u64)?;
            return items.iter().try_for_each(|item| write(item, encoder));
        }
        Item::Map(members) => {
            encoder.map(members.len() as u64)?;
            for (key, member) in members {
                encoder.u64(*key)?;
                write(member, encoder)?;
            }
            return Ok(());
        }
    };
    Ok(())
}

/// The item was not of the type that its place asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrongType;

/// Reading what stands at a known place.
impl Item {
    pub(super) fn into_unsigned(self) -> Result<u64, WrongType> {
        match self {
            Self::Unsigned(value) => Ok(value),
            _ => Err(WrongType),
        }
    }

    /// A number below 2^63, if it is one.
    pub fn as_number(&self) -> Option<u64> {
        self.clone().into_number().ok()
    }

    /// A number below 2^63, as all are but writers.
    pub(super) fn into_number(self) -> Result<u64, WrongType> {
        self.into_unsigned().and_then(|value| match value >> 63 {
            0 => Ok(value),
            _ => Err(WrongType),
        })
    }

    pub(super) fn into_signed(self) -> Result<i64, WrongType> {
        match self {
            Self::Unsigned(value) => i64::try_from(value).map_err(|_| WrongType),
            Self::Negative(value) => Ok(value),
            _ => Err(WrongType),
        }
    }

    pub(super) fn into_bytes(self) -> Result<Vec<u8>, WrongType> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(WrongType),
        }
    }

    pub(super) fn into_fixed<const N: usize>(self) -> Result<[u8; N], WrongType> {
        <[u8; N]>::try_from(self.into_bytes()?).map_err(|_| WrongType)
    }

    pub(super) fn into_text(self) -> Result<String, WrongType> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(WrongType),
        }
    }

    pub(super) fn into_bool(self) -> Result<bool, WrongType> {
        match self {
            Self::Bool(value) => Ok(value),
            _ => Err(WrongType),
        }
    }

    pub(super) fn into_array(self) -> Result<Vec<Item>, WrongType> {
        match self {
            Self::Array(items) => Ok(items),
            _ => Err(WrongType),
        }
    }

    /// An array of exactly `N`.
    pub(super) fn into_row<const N: usize>(self) -> Result<[Item; N], WrongType> {
        <[Item; N]>::try_from(self.into_array()?).map_err(|_| WrongType)
    }

    pub(super) fn into_map(self) -> Result<BTreeMap<u64, Item>, WrongType> {
        match self {
            Self::Map(members) => Ok(members),
            _ => Err(WrongType),
        }
    }

    /// `null`, or what `read` makes of it.
    pub(super) fn into_option<T>(
        self,
        read: impl FnOnce(Self) -> Result<T, WrongType>,
    ) -> Result<Option<T>, WrongType> {
        match self {
            Self::Null => Ok(None),
            item => read(item).map(Some),
        }
    }

    /// Each of an array, read alike.
    pub(super) fn into_list<T>(
        self,
        read: impl FnMut(Self) -> Result<T, WrongType>,
    ) -> Result<Vec<T>, WrongType> {
        self.into_array()?.into_iter().map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items() -> impl Strategy<Value = Item> {
        let leaf = prop_oneof![
            any::<u64>().prop_map(Item::Unsigned),
            (i64::MIN..0).prop_map(Item::Negative),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(Item::Bytes),
            "[a-zü]{0,9}".prop_map(Item::Text),
            any::<bool>().prop_map(Item::Bool),
            Just(Item::Null),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Item::Array),
                prop::collection::btree_map(0..300u64, inner, 0..6).prop_map(Item::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(item in items()) {
            prop_assert_eq!(Item::decode(&item.encode()), Ok(item));
        }

        #[test]
        fn arbitrary_bytes_are_an_item_in_its_one_encoding_or_none(
            bytes in prop::collection::vec(any::<u8>(), 0..64)
        ) {
            if let Ok(item) = Item::decode(&bytes) {
                prop_assert_eq!(item.encode(), bytes);
            }
        }
    }

    #[test]
    fn other_encodings_of_the_same_are_refused() {
        let cases: [&[u8]; 13] = [
            &[],
            &[0x18, 0x01],             // 1 in two bytes
            &[0x19, 0x00, 0xff],       // 255 in three
            &[0x01, 0x01],             // two items
            &[0x82, 0x01],             // an array that is cut off
            &[0x9f, 0x01, 0xff],       // of an indefinite length
            &[0x5f, 0x41, 0x61, 0xff], // bytes in pieces
            &[0xa2, 2, 0, 1, 0],       // keys that descend
            &[0xa2, 1, 0, 1, 0],       // a key twice
            &[0xa1, 0x61, 0x61, 0],    // a key of text
            &[0xc0, 0x01],             // a tag
            &[0xf9, 0x3c, 0x00],       // a float
            &[0x61, 0xff],             // text that is no UTF-8
        ];
        for bytes in cases {
            assert_eq!(Item::decode(bytes), Err(NotCbor), "{bytes:02x?}");
        }
    }

    #[test]
    fn what_claims_much_or_nests_deeply_costs_nothing() {
        let mut claim = vec![0x9b];
        claim.extend_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!(Item::decode(&claim), Err(NotCbor));
        assert_eq!(Item::decode(&vec![0x81; 1 << 20]), Err(NotCbor));
        let deepest = [vec![0x81; DEPTH - 1], vec![0x00]].concat();
        assert!(Item::decode(&deepest).is_ok());
        assert_eq!(Item::decode(&[vec![0x81; DEPTH], vec![0x00]].concat()), Err(NotCbor));
        // A megabyte of single-byte numbers is more than the budget.
        let flood = [vec![0x9a, 0x00, 0x10, 0x00, 0x00], vec![0; 1 << 20]].concat();
        assert_eq!(Item::decode(&flood), Err(NotCbor));
    }
}
