//! The templates that policies are made from (C.8), and the events they know.
//!
//! The sources give the shape of the list and one event name, `data_token.data_exchanged`;
//! the other names, and all ids, are our choice in its manner.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::governance::MEMBERS;

/// What can be voted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Event {
    /// Data is given to a token, inline, by upload or in place of older data.
    DataExchanged,
    /// Data is asked for.
    DataRequested,
    /// A token is deleted.
    DataDeleted,
    /// File meta is set or changed.
    FileMeta,
    /// Risk meta is set.
    RiskMeta,
    /// A device is approved.
    DeviceRegistered,
}

impl Event {
    #[cfg(test)]
    const ALL: [Self; 6] = [
        Self::DataExchanged,
        Self::DataRequested,
        Self::DataDeleted,
        Self::FileMeta,
        Self::RiskMeta,
        Self::DeviceRegistered,
    ];

    /// The name on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::DataExchanged => "data_token.data_exchanged",
            Self::DataRequested => "data_token.data_requested",
            Self::DataDeleted => "data_token.data_deleted",
            Self::FileMeta => "data_token.file_meta_configured",
            Self::RiskMeta => "data_token.risk_meta_configured",
            Self::DeviceRegistered => "device.registered",
        }
    }

    /// The id on the wire.
    pub(super) fn id(self) -> &'static str {
        match self {
            Self::DataExchanged => "evt-data-exchanged",
            Self::DataRequested => "evt-data-requested",
            Self::DataDeleted => "evt-data-deleted",
            Self::FileMeta => "evt-file-meta",
            Self::RiskMeta => "evt-risk-meta",
            Self::DeviceRegistered => "evt-device-registered",
        }
    }

    /// What it is, in words.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::DataExchanged => "Exchange data",
            Self::DataRequested => "Retrieve data",
            Self::DataDeleted => "Delete data",
            Self::FileMeta => "Configure file meta",
            Self::RiskMeta => "Configure information security risk meta",
            Self::DeviceRegistered => "Register a device",
        }
    }
}

/// A template.
#[derive(Debug)]
pub(super) struct Template {
    pub id: &'static str,
    name: &'static str,
    description: &'static str,
    events: &'static [Event],
}

const TEMPLATES: [Template; 7] = [
    Template {
        id: "tpl-data-exchange",
        name: "Data exchange",
        description: "A vote before data is stored under a token.",
        events: &[Event::DataExchanged],
    },
    Template {
        id: "tpl-data-retrieval",
        name: "Data retrieval",
        description: "A vote before data is given out.",
        events: &[Event::DataRequested],
    },
    Template {
        id: "tpl-data-deletion",
        name: "Data deletion",
        description: "A vote before a token and its data are deleted.",
        events: &[Event::DataDeleted],
    },
    Template {
        id: "tpl-file-meta",
        name: "File meta",
        description: "A vote before file meta is set or changed.",
        events: &[Event::FileMeta],
    },
    Template {
        id: "tpl-risk-meta",
        name: "Risk meta",
        description: "A vote before information security risk meta is set.",
        events: &[Event::RiskMeta],
    },
    Template {
        id: "tpl-data-token",
        name: "Data tokens",
        description: "A vote before anything is done with a token that holds data.",
        events: &[
            Event::DataExchanged,
            Event::DataRequested,
            Event::DataDeleted,
            Event::FileMeta,
            Event::RiskMeta,
        ],
    },
    Template {
        id: "tpl-device-registration",
        name: "Device registration",
        description: "A vote before a device is approved.",
        events: &[Event::DeviceRegistered],
    },
];

/// The template of an id.
pub(super) fn find(id: &str) -> Option<&'static Template> {
    TEMPLATES.iter().find(|template| template.id == id)
}

impl Template {
    /// One of its events, by id or by name.
    pub(super) fn event(&self, wanted: &str) -> Option<Event> {
        let is = |event: &&Event| event.id() == wanted || event.name() == wanted;
        self.events.iter().find(is).copied()
    }
}

/// The answer of list-policy-templates.
pub(super) fn list() -> Value {
    let event = |event: &Event| (event.id().to_owned(), json!({ event.name(): event.title() }));
    let template = |template: &Template| {
        let events: Map<String, Value> = template.events.iter().map(event).collect();
        let value = json!({
            "name": template.name,
            "description": template.description,
            "events": events,
            "configuration": MEMBERS,
            "votingAttributes": ["votingConfigurationId"],
        });
        (template.id.to_owned(), value)
    };
    Value::Object(TEMPLATES.iter().map(template).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_in_a_template_under_its_own_id() {
        for event in Event::ALL {
            assert!(TEMPLATES.iter().any(|template| template.event(event.id()) == Some(event)));
            assert!(TEMPLATES.iter().any(|template| template.event(event.name()) == Some(event)));
            assert!(Event::ALL.iter().filter(|other| other.id() == event.id()).count() == 1);
        }
    }
}
