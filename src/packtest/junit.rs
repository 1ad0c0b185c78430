//! A report in the form that CI systems read. Pure.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Played, report};

/// The report: a suite a pack, the cases in their order. `again` makes the command that plays one again.
///
/// # Errors
/// When a text cannot be written as XML.
pub fn of(played: &[Played], again: impl Fn(&Played) -> String) -> Result<String, String> {
    let mut junit = Report::new("signalman pack test");
    let mut suites: Vec<TestSuite> = Vec::new();
    for one in played {
        if suites.last().is_none_or(|suite| suite.name.as_str() != one.pack) {
            suites.push(TestSuite::new(one.pack.as_str()));
        }
        let Some(suite) = suites.last_mut() else { continue };
        let mut case = TestCase::new(one.name.as_str(), status(one, &again));
        case.set_classname(format!("{}:{}", one.place.file, one.place.line)).set_time(one.took);
        suite.add_test_case(case);
    }
    for mut suite in suites {
        let time = played.iter().filter(|one| one.pack == suite.name.as_str()).map(|one| one.took).sum();
        suite.set_time(time);
        junit.add_test_suite(suite);
    }
    junit.to_string().map_err(|error| error.to_string())
}

fn status(one: &Played, again: &impl Fn(&Played) -> String) -> TestCaseStatus {
    let Some(first) = one.problems.first() else { return TestCaseStatus::success() };
    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
    status.set_message(first.what.as_str()).set_description(report::failed(one, &again(one)).join("\n"));
    status
}
