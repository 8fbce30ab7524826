//! The shapes that the protocol's sources leave open: what an honest service may look like.

use super::super::random::Draws;

/// One choice for each question that sources answer differently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) command: Command,
    pub(crate) request: Request,
    pub(crate) temporary: Temporary,
    pub(crate) configured: Configured,
    pub(crate) again: Again,
    pub(crate) uploaded: Uploaded,
    pub(crate) list: List,
    pub(crate) filters: Filters,
    pub(crate) status: Status,
    pub(crate) status_method: StatusMethod,
    pub(crate) ack: Ack,
    pub(crate) answer: Answer,
    /// The token is permanent once its payload is in, and keeps its name (D.4, official).
    pub(crate) permanent_at_exchange: bool,
    /// Which `uuid` of a reservation it does with.
    pub(crate) mark: Mark,
    /// A long life of a reservation is refused with 422 (D.1).
    pub(crate) refuses_long_ttl: bool,
    /// An empty extension is refused with 422 (C.4.5).
    pub(crate) refuses_empty_extension: bool,
    /// Pages above 25 are refused with 422 (C.4.7).
    pub(crate) refuses_large_pages: bool,
    /// There is no form call that changes meta (C.4.8).
    pub(crate) lacks_update: bool,
    /// Seconds that an authorization token lives; zero: a year.
    pub(crate) authorized_secs: u32,
    /// Addresses of upload servers are `host:port?auth=…` (F). Not drawn.
    pub(crate) addresses_lack_slash: bool,
    /// `reauthorize` swaps the token at once, instead of extending it (D.9).
    pub(crate) swaps_token: bool,
}

macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $($(#[$what:meta])* $choice:ident),+ $(,)? })+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            pub(crate) enum $name {
                #[default]
                $($(#[$what])* $choice),+
            }

            impl $name {
                fn draw(draws: &mut Draws) -> Self {
                    let all = [$(Self::$choice),+];
                    all[draws.below(all.len() as u64) as usize]
                }
            }
        )+
    };
}

choices! {
    /// How a 202 names its command (B.3).
    Command { HeaderAndArray, HeaderOnly, Array, Bare, Text, Object, HeaderName }
    /// How a data request is named (B.3).
    Request { Headers, Body }
    /// How a temporary token and its upload are told (C.4.2, B.7).
    Temporary { Url, HostAndPort, TokenForBase, SchemeLess }
    /// What the last step of a put answers (D.4).
    Configured {
        /// `{"token": new}`.
        Object,
        /// `"new"`.
        Bare,
        /// `new`.
        Text,
        /// 202, and the temporary token is the permanent one.
        Accepted,
        /// 202, and only the listing shows the new name.
        AcceptedRenamed,
        /// 200 with an empty body, and the temporary token is the permanent one.
        Silent,
        /// `{"token": temporary}`.
        Same,
        /// 200 whose body and header are the command's id (D.4).
        CommandText,
    }
    /// What the last step answers when it is asked once more.
    Again { Same, Gone, Conflict }
    /// What a stream server answers to an upload (B.7).
    Uploaded { Empty, Text, Command, CommandBody }
    /// How a listing looks (C.4.7).
    List { Items, Flat, Array, Data }
    /// What filters of a listing do (C.4.7).
    Filters { Exact, Ignored, Refused }
    /// How a command's status is told (B.6).
    Status { Word, BareWord, Object, Code }
    /// How it is asked for (B.6).
    StatusMethod { Both, Get, Post }
    /// How a command is acknowledged (B.5).
    Ack { Plain, PendingFirst, TextStatus }
    /// How a payload is given (B.5).
    Answer {
        /// Small ones inline, others as a link.
        Mixed,
        Inline,
        Link,
        /// A note, then a link.
        NoteAndLink,
        TokenThenReady,
        ReadyThenToken,
        ReadyWithUrl,
        /// Never announced.
        TokenOnly,
        /// Binary messages of a WebSocket.
        Messages,
    }
    /// What becomes of the caller's mark (C.4.1).
    Mark { Kept, Ignored, Refused }
}

impl Shape {
    /// One of all that there can be.
    pub(crate) fn draw(draws: &mut Draws) -> Self {
        let mut shape = Self {
            command: Command::draw(draws),
            request: Request::draw(draws),
            temporary: Temporary::draw(draws),
            configured: Configured::draw(draws),
            again: Again::draw(draws),
            uploaded: Uploaded::draw(draws),
            list: List::draw(draws),
            filters: Filters::draw(draws),
            status: Status::draw(draws),
            status_method: StatusMethod::draw(draws),
            ack: Ack::draw(draws),
            answer: Answer::draw(draws),
            permanent_at_exchange: draws.below(4) == 0,
            mark: if draws.below(2) == 0 { Mark::Kept } else { Mark::draw(draws) },
            refuses_long_ttl: draws.below(3) == 0,
            refuses_empty_extension: draws.below(3) == 0,
            refuses_large_pages: draws.below(3) == 0,
            lacks_update: draws.below(4) == 0,
            authorized_secs: [0, 0, 90, 600][draws.below(4) as usize],
            addresses_lack_slash: false,
            swaps_token: draws.below(2) == 0,
        };
        let keeps =
            [Configured::Accepted, Configured::Silent, Configured::Same, Configured::CommandText];
        if shape.configured == Configured::AcceptedRenamed {
            // No source has it; a client can only know by its mark.
            shape.mark = Mark::Kept;
        }
        if shape.permanent_at_exchange && !keeps.contains(&shape.configured) {
            shape.configured = keeps[draws.below(4) as usize];
        }
        shape
    }

    /// Whether listings give the marks of puts.
    pub(crate) fn keeps_marks(&self) -> bool {
        self.mark == Mark::Kept
    }

    /// Whether the last step of a put is a command.
    pub(crate) fn configures_later(&self) -> bool {
        use Configured as C;
        matches!(self.configured, C::Accepted | C::AcceptedRenamed | C::CommandText)
    }

    /// Whether a put's permanent token has the temporary one's name.
    pub(crate) fn keeps_name(&self) -> bool {
        use Configured as C;
        matches!(self.configured, C::Accepted | C::Silent | C::Same | C::CommandText)
    }
}
