//! The table's rows in the exposition format.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::figures::Sources;
use super::table::{METRICS, MetricKind, MetricRow, Sample};

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let figures = self.read();
        METRICS.iter().try_for_each(|row| write(row, (row.read)(&figures), &mut encoder))
    }
}

fn write(row: &MetricRow, sample: Sample, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
    let unit = row.unit.map(|unit| Unit::Other(unit.to_owned()));
    let kind = match row.kind {
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
    };
    let mut encoder = encoder.encode_descriptor(row.name, row.help, unit.as_ref(), kind)?;
    match sample {
        Sample::None => Ok(()),
        Sample::Number(value) => number(row.kind, value, encoder),
        Sample::Labelled(values) => values.into_iter().try_for_each(|(label, value)| {
            let labels = [(row.label.unwrap_or_default(), label)];
            number(row.kind, value, encoder.encode_family(&labels)?)
        }),
        Sample::Distribution(view, divisor) => {
            let bounds = view.bounds.iter().map(|bound| *bound as f64 / divisor).chain([f64::MAX]);
            let buckets: Vec<(f64, u64)> = bounds.zip(view.counts.iter().copied()).collect();
            let count = view.counts.iter().sum();
            encoder.encode_histogram::<NoLabelSet>(view.sum as f64 / divisor, count, &buckets, None)
        }
    }
}

fn number(kind: MetricKind, value: u64, encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
    match kind {
        MetricKind::Counter => ConstCounter::new(value).encode(encoder),
        _ => ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder),
    }
}
