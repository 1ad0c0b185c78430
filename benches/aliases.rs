//! How fast a command is read and its alias found, among a hundred and ten thousand. `signalman bench commands` measures the same.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use signalman::cli::bench::aliases::{SHAPES, book, commands};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("aliases");
    group.throughput(Throughput::Elements(1));
    for (shape, count) in SHAPES {
        let (book, commands) = (book(*shape, *count), commands(*shape, *count));
        let mut next = commands.iter().cycle();
        group.bench_function(format!("{}/{count}", shape.name()), |bencher| {
            bencher.iter(|| book.meaning(black_box(next.next().expect("they come round again"))));
        });
    }
    group.finish();
    criterion.final_summary();
}
