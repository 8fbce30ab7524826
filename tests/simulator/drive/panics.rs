//! Panics of the product's tasks, which the runtime keeps to itself.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Notes every panic of this thread that comes from the product's sources, in silence; others
/// are printed as before.
pub fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let place = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
            match place.filter(|place| place.starts_with("src/")) {
                Some(place) => SEEN.with_borrow_mut(|seen| seen.push(place)),
                None => before(info),
            }
        }));
    });
}

/// What panicked since this was asked last.
pub fn take() -> Vec<String> {
    SEEN.take()
}
