//! The suite's own control: stores that break the contract, each in one way, and the trial that
//! must notice. A suite that passes these would prove nothing of any backend.

mod store;

use futures_util::StreamExt as _;
use keyhaul_conformance::report;
use store::{Broken, Defect};

/// Each defect, and a trial that it must fail.
const DEFECTS: &[(Defect, &str)] = &[
    (Defect::LosesEmpty, "a value comes back to the byte"),
    (Defect::DropsNewline, "a value comes back to the byte"),
    (
        Defect::CutsLongValues,
        "one byte more than the longest value",
    ),
    (Defect::FoldsCase, "paths that differ in a byte"),
    (Defect::DecodesPercent, "names come out of a listing"),
    (Defect::CutsLongPaths, "very long paths are kept apart"),
    (Defect::TakesRoot, "the root is no secret"),
    (Defect::IgnoresCreate, "Create of what is there"),
    (Defect::WritesAndRefuses, "Create of what is there"),
    (Defect::TakesStaleUpdate, "Update of an older version"),
    (Defect::UpdatesAbsent, "Update of what is not there"),
    (Defect::RacesCreate, "of many Creates at once"),
    (Defect::RacesUpdate, "Updates at once lose nothing"),
    (Defect::TearsValues, "a reader never sees half a value"),
    (Defect::TearsWhenDropped, "a put dropped half-way"),
    (Defect::GivesCurrentForAny, "a version that is not there"),
    (Defect::CountsDown, "every version kept gives its own value"),
    (Defect::MissesAbsent, "deleting what is not there"),
    (
        Defect::DeletesFolders,
        "deleting a secret leaves its neighbours",
    ),
    (
        Defect::DeletesAnyVersion,
        "deleting with a version that is not current",
    ),
    (Defect::ReversesMany, "get_many answers in the order"),
    (Defect::JoinsMany, "get_many answers in the order"),
    (Defect::ListsPrefix, "a listing has all that is below"),
    (Defect::ListsByText, "a listing has all that is below"),
    (Defect::OrdersBySegment, "a listing has all that is below"),
    (Defect::HidesFolders, "a shallow listing"),
    (Defect::MissesEmptyPrefix, "a prefix with nothing below"),
    (Defect::IgnoresLimit, "pages of any size"),
    (Defect::IgnoresCursor, "pages of any size"),
    (Defect::EndsAfterPage, "pages of any size"),
    (
        Defect::ServesExpired,
        "a secret expires when its time comes",
    ),
    (Defect::ExpiresEarly, "a secret expires when its time comes"),
    (Defect::ForgetsExpiry, "what has expired is NotFound"),
    (
        Defect::CreatesOverExpired,
        "an expired secret that the store keeps",
    ),
    (Defect::ForgetsLabels, "labels come back"),
    (
        Defect::IgnoresRecipe,
        "a generated value keeps to its recipe",
    ),
    (
        Defect::GeneratesOnce,
        "a generated value keeps to its recipe",
    ),
    (Defect::ForgetsIds, "a Create repeated under its id"),
    (Defect::RepeatsWrites, "a repeated write does not undo"),
    (
        Defect::LacksWhatItClaims,
        "what a store can do is never Unsupported",
    ),
    (Defect::DoesWhatItDenies, "without DELETE, no delete"),
    (Defect::ChecksTooLate, "without UPDATE, no Update"),
    (Defect::ActsAndDenies, "without UPDATE, no Update"),
    (Defect::LeaksInErrors, "Create of what is there"),
    (Defect::LeaksInDebug, "no refusal shows a value"),
    (Defect::LeaksInLocation, "the descriptor needs no runtime"),
    (Defect::ProbeDeletes, "probe succeeds and changes nothing"),
    (Defect::MapForMissingField, "a field comes back, and one"),
    (Defect::MergesMaps, "the whole map is a JSON object"),
    (Defect::TakesNoObject, "what is no JSON object"),
    (Defect::ForgetsSiblings, "writing a field keeps"),
    (
        Defect::ForgetsSiblingsUnnamed,
        "a write that names no field",
    ),
    (Defect::CreatesOverField, "Create of a field"),
    (Defect::UpdatesFieldBlindly, "Update of a field"),
    (Defect::GeneratesWhole, "generate makes a field"),
    (Defect::RacesFields, "writers of different fields"),
    (
        Defect::WritesFieldsUnguarded,
        "without UPDATE, no writing of one field",
    ),
    (Defect::Panics, "probe succeeds and changes nothing"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_defect_is_noticed() {
    let tasks = DEFECTS.iter().map(|(defect, trial)| async move {
        let report = tokio::spawn(report(Broken::with(Some(*defect)))).await;
        let report = report.expect("the suite itself does not panic");
        let caught = report.failed().any(|(name, _)| name.starts_with(trial));
        (!caught).then(|| format!("{defect:?} is not noticed by `{trial}`: {report}"))
    });
    // A few at once: among all of them, one that shows by its timing hardly gets its turn.
    let outcomes = futures_util::stream::iter(tasks).buffer_unordered(8);
    let missed: Vec<_> = outcomes.filter_map(std::future::ready).collect().await;
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

/// The control of the control: without a defect the same wrapper passes.
#[tokio::test(flavor = "multi_thread")]
async fn no_defect_is_no_failure() {
    let report = report(Broken::with(None)).await;
    assert!(report.is_ok(), "{report}");
}

/// The report names each failed trial and both sides of it, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn the_report_tells_every_failure() {
    let report = report(Broken::with(Some(Defect::ReversesMany))).await;
    let text = report.to_string();
    let failed: Vec<_> = report.failed().collect();
    assert!(failed.len() >= 2, "{text}");
    for (name, failure) in failed {
        assert!(
            text.contains(name) && text.contains(&failure.expected),
            "{text}"
        );
    }
    let passed = report.trials.iter().find(|trial| trial.failure.is_none());
    assert!(!text.contains(passed.expect("some pass").name));
}
