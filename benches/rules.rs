//! How fast events are judged, for each bank of rules: from the text of a payload to the verdicts that are kept.
//! `signalman bench rules` measures the same, and memory too.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use signalman::cli::bench::banks::SIZES;
use signalman::rule::book::RuleBook;
use signalman::rule::judge::{World, judge};
use signalman::rule::windows::Windows;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn rules(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rules");
    group.throughput(Throughput::Elements(1));
    for (bank, count) in SIZES {
        let (book, events) = (RuleBook::new(bank.compiled(*count)), bank.events(*count));
        let (mut windows, mut next) = (Windows::default(), events.iter().cycle());
        group.bench_function(format!("{}/{count}", bank.name()), |bencher| {
            bencher.iter(|| judge(&book, black_box(next.next().expect("they come round again")), World::empty(), &mut windows));
        });
    }
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    rules(&mut criterion);
    criterion.final_summary();
}
