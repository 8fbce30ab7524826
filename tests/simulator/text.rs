//! Scripts as text, to be read, pasted and kept: RON, a step a line.

use std::collections::BTreeSet;

use super::company::{Script, Step};
use super::kinds;

/// A script as text.
pub fn write(script: &Script) -> String {
    let mut out = format!("schedule: {}\n", script.schedule);
    for settings in &script.settings {
        out += &format!("machine: {}\n", ron(settings));
    }
    for step in &script.steps {
        out += &format!("{}\n", ron(step));
    }
    out
}

/// What [`write`] wrote; lines that begin with `#` say something to people. What a person has
/// written by hand is checked by the rules of a script.
pub fn read(text: &str) -> Result<Script, String> {
    let mut script = Script::default();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        let wrong = |why: String| format!("line {}: {why}: {line}", number + 1);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(schedule) = line.strip_prefix("schedule: ") {
            script.schedule = schedule.parse().map_err(|e| wrong(format!("{e}")))?;
        } else if let Some(settings) = line.strip_prefix("machine: ") {
            let settings = ron::from_str(settings).map_err(|e| wrong(e.to_string()))?;
            script.settings.push(settings);
        } else {
            let step: Step = ron::from_str(line).map_err(|e| wrong(e.to_string()))?;
            script.steps.push(step);
        }
    }
    check(&script)?;
    Ok(script)
}

/// Whether a script can be run and judged: somebody takes part, something happens, and no
/// size is left by two steps (the judge knows versions by their sizes).
pub fn check(script: &Script) -> Result<(), String> {
    if script.settings.is_empty() {
        return Err("no machine".into());
    }
    if script.steps.is_empty() {
        return Err("no step".into());
    }
    let mut sizes = BTreeSet::new();
    match script.steps.iter().filter_map(kinds::size).find(|size| !sizes.insert(*size)) {
        Some(size) => Err(format!("size {size} is left by two steps")),
        None => Ok(()),
    }
}

/// The types of a script have nothing that cannot be written.
fn ron(value: &impl serde::Serialize) -> String {
    ron::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::draw::{Profile, draw};
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let mut kinds_seen = BTreeSet::new();
        for name in ["quiet", "machines", "fates", "lies", "all"] {
            let profile = Profile::named(name).unwrap();
            for seed in 0..80 {
                let script = draw(seed, &profile);
                let text = write(&script);
                let lines = text.lines().count();
                assert_eq!(lines, 1 + script.settings.len() + script.steps.len(), "a step a line");
                kinds_seen.extend(script.steps.iter().map(kinds::kind));
                assert_eq!(read(&text), Ok(script));
            }
        }
        // Every kind there is has gone through: see `kinds`.
        assert_eq!(kinds_seen.len(), 68, "{kinds_seen:?}");
    }

    #[test]
    fn what_people_write_is_read() {
        let machine = "machine: (trash_days:7,split_above:100,part:50,poll_secs:0)";
        let script = read(&format!("# why\n\n  schedule: 3\n  {machine}\n  Wait( ms: 5 )\n"));
        let script = script.unwrap();
        assert_eq!((script.schedule, script.settings.len()), (3, 1));
        assert_eq!(script.steps, [Step::Wait { ms: 5 }]);
    }

    #[test]
    fn what_is_no_script_is_refused_with_its_line() {
        let machine = "machine: (trash_days:7,split_above:100,part:50,poll_secs:0)";
        assert!(read("Wait(ms: x)").unwrap_err().starts_with("line 1: "));
        assert!(read("\nschedule: x").unwrap_err().starts_with("line 2: "));
        assert!(read("machine: (part:1)").unwrap_err().starts_with("line 1: "));
        assert_eq!(read("# nothing"), Err("no machine".into()));
        assert_eq!(read(machine), Err("no step".into()));
        let twice = "Do(0,Write(at:\"a\",size:9))\nDo(0,Truncate(at:\"a\",size:9))";
        let wrong = read(&format!("{machine}\n{twice}"));
        assert_eq!(wrong, Err("size 9 is left by two steps".into()));
    }
}
