//! Scripts as text, to be read, pasted and kept: RON, a step a line.

use super::company::{Script, Step};

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

/// What [`write`] wrote; lines that begin with `#` say something to people.
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
    Ok(script)
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
        for seed in 0..40 {
            let script = draw(seed, &Profile::named("all").unwrap());
            assert_eq!(read(&write(&script)), Ok(script));
        }
        assert!(read("Wait(ms: x)").unwrap_err().starts_with("line 1: "));
    }
}
