//! Files that use each other in a circle cannot be read, tested or moved one by one. None may
//! be added to those of `circles.txt`, which names today's.

use std::collections::{BTreeMap, BTreeSet};

use crate::arrows::arrows;
use crate::reader::{root, sources};

/// Files, each of which leads to each other by arrows.
type Circle = BTreeSet<String>;

/// The circles among `arrows`: those of more than one file.
fn circles(arrows: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<Circle> {
    let reached: BTreeMap<_, _> = arrows.keys().map(|file| (file, reach(arrows, file))).collect();
    let both_ways = |file: &String| {
        let back = |other: &&String| reached[*other].contains(file);
        reached[file].iter().filter(back).cloned().collect::<Circle>()
    };
    arrows.keys().map(both_ways).filter(|circle| circle.len() > 1).collect()
}

/// The files that `start` leads to.
fn reach(arrows: &BTreeMap<String, BTreeSet<String>>, start: &str) -> BTreeSet<String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![start]);
    while let Some(file) = open.pop() {
        for next in &arrows[file] {
            if found.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    found
}

/// The circles of a list: a file a line, an empty line between circles, `#` for comments.
fn listed(list: &str) -> Vec<Circle> {
    let lines = list.lines().filter(|line| !line.starts_with('#'));
    let lines: Vec<_> = lines.map(|line| line.trim().to_owned()).collect();
    let circles = lines.split(|line| line.is_empty()).filter(|circle| !circle.is_empty());
    circles.map(|circle| circle.iter().cloned().collect()).collect()
}

/// What is wrong with a list: circles that it does not name, and those that are no longer.
fn differences(found: &BTreeSet<Circle>, list: &[Circle]) -> Vec<String> {
    let lines =
        |circle: &Circle| circle.iter().map(|file| format!("\n  {file}")).collect::<String>();
    let mut wrong = Vec::new();
    for circle in found.iter().filter(|circle| !list.contains(circle)) {
        if list.iter().any(|known| known.is_superset(circle)) {
            wrong.push(format!("a circle is smaller now, write so:{}", lines(circle)));
        } else {
            wrong.push(format!("a new circle, or one that grew:{}", lines(circle)));
        }
    }
    for circle in list.iter().filter(|circle| !found.contains(*circle)) {
        wrong.push(format!("no circle any more, take it out:{}", lines(circle)));
    }
    wrong
}

/// The arrows between the files of the circles that a list does not name.
fn arrows_inside(
    arrows: &BTreeMap<String, BTreeSet<String>>,
    found: &BTreeSet<Circle>,
    list: &[Circle],
) -> Vec<String> {
    let unknown = found.iter().filter(|circle| !list.contains(circle));
    let of_circle = |circle: &Circle| {
        let of_file = |file: &String| {
            let used: Vec<_> = arrows[file].intersection(circle).map(String::as_str).collect();
            format!("{file} uses {}", used.join(", "))
        };
        circle.iter().map(of_file).collect::<Vec<_>>()
    };
    unknown.flat_map(of_circle).collect()
}

#[test]
fn files_are_in_no_circle_but_those_that_are_listed() {
    let sources = sources();
    let root = root();
    let files = sources
        .iter()
        .map(|(path, text)| (path.strip_prefix(&root).unwrap().to_str().unwrap(), text.as_str()));
    // The program itself names the crate as any other would, and nothing names it.
    let arrows = arrows(files.filter(|(file, _)| *file != "main.rs"));
    assert!(arrows.values().flatten().count() > 300, "the arrows were not read: {arrows:?}");
    let (found, list) = (circles(&arrows), listed(include_str!("circles.txt")));
    let wrong = differences(&found, &list);
    let inside = arrows_inside(&arrows, &found, &list);
    assert!(wrong.is_empty(), "{}\n\n{}", wrong.join("\n"), inside.join("\n"));
}

fn sample(arrows: &[(&str, &str)]) -> BTreeMap<String, BTreeSet<String>> {
    let used = |used: &str| used.split_whitespace().map(str::to_owned).collect();
    arrows.iter().map(|(file, names)| ((*file).to_owned(), used(names))).collect()
}

#[test]
fn a_circle_is_all_that_lead_to_each_other() {
    let arrows = sample(&[("a", "b"), ("b", "c"), ("c", "b d"), ("d", "e"), ("e", "d"), ("f", "")]);
    let expected = listed("# of the sample\nb\nc\n\nd\ne\n");
    assert_eq!(circles(&arrows), BTreeSet::from_iter(expected));
}

#[test]
fn the_list_may_only_become_shorter() {
    let found = |list: &str| BTreeSet::from_iter(listed(list));
    let judged = |now: &str, list: &str| {
        let wrong = differences(&found(now), &listed(list));
        wrong.iter().map(|text| text.split(',').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(judged("a\nb\n\nc\nd", "c\nd\n\na\nb"), [] as [&str; 0]);
    assert_eq!(judged("a\nb\n\nc\nd", "a\nb"), ["a new circle"]);
    assert_eq!(judged("a\nb\nc", "a\nb"), ["a new circle", "no circle any more"]);
    assert_eq!(judged("a\nb", "a\nb\nc"), ["a circle is smaller now", "no circle any more"]);
    assert_eq!(judged("", "a\nb"), ["no circle any more"]);
}
