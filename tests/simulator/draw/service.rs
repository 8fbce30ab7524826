//! How the service behaves in a script.

use super::super::company::{Machine, Odd, Service, Step, Stored};
use super::super::kinds;
use super::{DAY, Drawer};

impl Drawer<'_> {
    fn stored(&mut self) -> Stored {
        use Stored as S;
        [S::File, S::File, S::Part, S::PartList, S::Segment, S::Segment, S::Manifest, S::Page]
            [self.below(8) as usize]
    }

    fn someone(&mut self) -> Option<Machine> {
        if self.one_in(2) { None } else { Some(self.machine()) }
    }

    pub(super) fn service(&mut self, kind: &str) {
        let n = 1 + self.below(4) as u32;
        let ms = 1_000 + self.below(90_000) as u32;
        let number = |drawer: &mut Self| drawer.below(1_000) as u32;
        let order = match kind {
            "slow" => Service::Slow { ms: 200 + self.below(5_000) as u32 },
            "down" => Service::Down { ms },
            "lag" => Service::Lag { on: self.someone(), ms: self.below(3_600_000) as u32 },
            "lost-ack" => Service::LostAck { n },
            "lands-late" => Service::LandsLate { n, ms },
            "fail-puts" => Service::FailPuts { n },
            "fail-gets" => Service::FailGets { n },
            "service-clock" => {
                let ms = [DAY as i64, 400 * DAY as i64][self.below(2) as usize];
                Service::Clock { ms: if self.one_in(2) { -ms } else { ms } }
            }
            "swap" => Service::Swap { what: self.stored(), a: number(self), b: number(self) },
            "replay" => {
                Service::Replay { what: self.stored(), of: number(self), older: number(self) }
            }
            "cut" => {
                let (what, of) = (self.stored(), number(self));
                Service::Cut { what, of, bytes: 1 + self.below(200) as u32 }
            }
            "roll-back" => Service::RollBack { on: self.someone(), ms: self.below(400_000) },
            "withhold" => {
                Service::Withhold { what: self.stored(), of: number(self), on: self.someone() }
            }
            "copy-as" => {
                let to = [Stored::Segment, Stored::Manifest, Stored::File][self.below(3) as usize];
                Service::CopyAs { what: self.stored(), of: number(self), to, number: self.below(9) }
            }
            "duplicate-entries" => Service::Duplicate,
            "reorder" => Service::Reorder,
            "wrong-page" => Service::WrongPage { n },
            "short-page" => Service::ShortPage { n },
            "shift" => Service::Shift { n },
            "no-sizes" => Service::NoSizes,
            "year" => Service::Year { year: [1970, 2030, 9999][self.below(3) as usize] },
            "entry" => {
                let odd = [Odd::HugeNumber, Odd::Nul, Odd::DotDot, Odd::Usurper];
                Service::Entry { odd: odd[self.below(4) as usize] }
            }
            "answer" => Service::Answer { n, token: "OK".into() },
            _ => Service::Erase { what: self.stored(), of: number(self) },
        };
        let passing = matches!(order, Service::Slow { .. } | Service::Lag { .. });
        let lie = kinds::is_lie(&order);
        // Who has a content in a cache does not ask for it again.
        let is_seen = matches!(
            order,
            Service::Lag { on: None, .. }
                | Service::RollBack { on: None, .. }
                | Service::Withhold { on: None, .. }
                | Service::Swap { .. }
                | Service::Replay { .. }
                | Service::Cut { .. }
        );
        self.push(Step::Service(order));
        if (lie || passing) && self.one_in(2) {
            for number in 0..2 + self.below(8) {
                self.operation(100 + number);
                self.pause();
            }
            if is_seen {
                self.push(Step::Newcomer);
            }
            self.push(Step::Service(Service::Honest));
        }
    }
}
