//! What can go wrong between the client and the service, and when it does.

use super::super::random::Draws;

/// Which calls a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    /// All that it can strike.
    Any,
    Login,
    /// A new life for the authorization token.
    Renew,
    Reserve,
    /// The temporary token of a reservation.
    Temporary,
    Exchange,
    Upload,
    Configure,
    /// A command's status.
    Poll,
    List,
    /// A data request, and its answer on the channel.
    Request,
    Download,
    Delete,
    Meta,
    Risk,
    /// The storage devices.
    Storage,
    /// Opening the channel.
    Connect,
}

/// One way in which a call, its acknowledgement or its payload goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WireFault {
    /// No connection can be opened.
    Refused,
    /// The call never arrives; the connection breaks, or nothing more is heard.
    CallLost { silent: bool },
    /// The call is carried out, and its reply never arrives.
    ReplyLost { silent: bool },
    /// The connection breaks, and the call arrives so many seconds later all the same.
    LandsLate { secs: u32 },
    /// An error of the service or of a proxy, before or after the call was carried out.
    Status { status: u16, carried_out: bool },
    /// The authorization token has ended.
    Unauthorized,
    /// A reply that the call cannot have.
    Reply { wrong: Wrong, carried_out: bool },
    /// The command is carried out, and acknowledged, so many seconds later.
    Slow { secs: u32 },
    /// The acknowledgement is never sent.
    AckLost,
    /// The acknowledgement is sent so many seconds after the command was carried out.
    AckLate { secs: u32 },
    /// The acknowledgement comes before the reply that names its command.
    AckEarly,
    /// The acknowledgement comes twice.
    AckTwice,
    /// An acknowledgement of another command comes in its place.
    AckForAnother,
    /// The channel breaks in place of the acknowledgement.
    SocketCut,
    /// The channel stays open and nothing comes over it any more.
    SocketMute,
    /// The payload's connection breaks before its end.
    ShortDownload,
    /// The payload stops coming.
    StalledDownload,
    /// The payload is not taken any more.
    StalledUpload,
}

/// A reply that no source knows: what proxies say, and half of what a service does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrong {
    /// The text `OK`, with status 200.
    Ok,
    /// A page of HTML, with status 200.
    Html,
    /// Nothing, with status 200.
    Nothing,
    /// `null`.
    Null,
    /// `[]`.
    Array,
    /// An object without a known member.
    Object,
    /// The first half of JSON.
    Torn,
    /// Status 202 without the command's id.
    Unnamed,
}

impl Wrong {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Ok,
        Self::Html,
        Self::Nothing,
        Self::Null,
        Self::Array,
        Self::Object,
        Self::Torn,
        Self::Unnamed,
    ];
}

/// Where on its way a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Call,
    Ack,
    Body,
}

impl WireFault {
    fn phase(self) -> Phase {
        match self {
            Self::Refused
            | Self::CallLost { .. }
            | Self::ReplyLost { .. }
            | Self::LandsLate { .. }
            | Self::Status { .. }
            | Self::Unauthorized
            | Self::Reply { .. } => Phase::Call,
            Self::Slow { .. }
            | Self::AckLost
            | Self::AckLate { .. }
            | Self::AckEarly
            | Self::AckTwice
            | Self::AckForAnother
            | Self::SocketCut
            | Self::SocketMute => Phase::Ack,
            Self::ShortDownload | Self::StalledDownload | Self::StalledUpload => Phase::Body,
        }
    }

    /// Whether an acknowledgement comes late by it, or never.
    pub(super) fn delays_acks(self) -> bool {
        self.phase() == Phase::Ack && !matches!(self, Self::AckEarly | Self::AckTwice)
    }

    /// Whether this fault means something at `at`.
    pub(super) fn fits(self, at: At) -> bool {
        let stream = matches!(at, At::Upload | At::Download);
        match self {
            Self::Unauthorized => !stream && !matches!(at, At::Login | At::Connect),
            Self::ReplyLost { .. } | Self::LandsLate { .. } | Self::Reply { .. } => {
                !matches!(at, At::Connect)
            }
            Self::ShortDownload | Self::StalledDownload => at == At::Download,
            Self::StalledUpload => at == At::Upload,
            _ => true,
        }
    }

    /// The names of all.
    pub(crate) const KINDS: [&str; 25] = [
        "Refused",
        "CallLost",
        "ReplyLost",
        "LandsLate",
        "Status",
        "Unauthorized",
        "Reply:Ok",
        "Reply:Html",
        "Reply:Nothing",
        "Reply:Null",
        "Reply:Array",
        "Reply:Object",
        "Reply:Torn",
        "Reply:Unnamed",
        "Slow",
        "AckLost",
        "AckLate",
        "AckEarly",
        "AckTwice",
        "AckForAnother",
        "SocketCut",
        "SocketMute",
        "ShortDownload",
        "StalledDownload",
        "StalledUpload",
    ];

    /// Its name without numbers, as signatures have it.
    pub(crate) fn name(self) -> String {
        let text = format!("{self:?}");
        let name = text.split([' ', '{']).next().unwrap_or_default().to_owned();
        match self {
            Self::Reply { wrong, .. } => format!("{name}:{wrong:?}"),
            _ => name,
        }
    }
}

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// The next so many calls.
    Next(u32),
    /// So many calls of a thousand, until it is calm again.
    PerMille(u16),
}

/// A fault that struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hit {
    /// Where.
    pub(crate) at: At,
    /// What.
    pub(crate) fault: WireFault,
}

impl Hit {
    /// As signatures have it.
    pub(crate) fn name(self) -> String {
        format!("{:?}/{}", self.at, self.fault.name())
    }
}

/// What is switched on, and what has struck.
pub(super) struct Faults {
    on: Vec<(At, WireFault, When)>,
    draws: Draws,
    hits: Vec<Hit>,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self { on: Vec::new(), draws: Draws::new(seed), hits: Vec::new() }
    }

    pub(super) fn switch_on(&mut self, at: At, fault: WireFault, when: When) {
        self.on.push((at, fault, when));
    }

    pub(super) fn calm(&mut self) {
        self.on.clear();
    }

    /// The fault that strikes a call now, if one does: of several the one that was switched
    /// on first.
    pub(super) fn strike(&mut self, at: At, phase: Phase) -> Option<WireFault> {
        let Self { on, draws, hits } = self;
        let mut strikes = |(place, fault, when): &mut (At, WireFault, When)| {
            let here = (*place == At::Any || *place == at) && fault.fits(at);
            here && fault.phase() == phase
                && match when {
                    When::Next(left) => left.checked_sub(1).map(|rest| *left = rest).is_some(),
                    When::PerMille(of) => draws.below(1_000) < u64::from(*of),
                }
        };
        let fault = on.iter_mut().find_map(|one| strikes(one).then_some(one.1))?;
        hits.push(Hit { at, fault });
        Some(fault)
    }

    /// Everything that struck so far.
    pub(super) fn hits(&self) -> &[Hit] {
        &self.hits
    }
}
