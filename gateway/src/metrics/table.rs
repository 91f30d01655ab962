//! One row for every metric: the exporter works from it, `METRICS.md` prints it, alert rules may name nothing else.

use std::collections::BTreeMap;

use lianxin_proto::{ROWS, ReasonRow};
use lianxin_store::{Distribution, Room};
use lianxin_transport::RefusalReason;
use lianxin_types::Timestamp;

use super::figures::Figures;
use crate::readiness::Reason;

/// What kind of figure it is, in Prometheus' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only rises, from 0 at the start of the process (or of the zone, where the help says so).
    Counter,
    /// As it is now.
    Gauge,
    /// How often a value fell into which range.
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub struct MetricRow {
    /// Name without unit and suffix.
    pub(super) name: &'static str,
    /// What kind of figure it is.
    pub kind: MetricKind,
    /// The unit, which ends the name.
    pub unit: Option<&'static str>,
    /// The one label that it has, if it has one.
    pub label: Option<&'static str>,
    /// What it says.
    pub help: &'static str,
    /// The same in Chinese.
    pub chinese: &'static str,
    pub(super) read: fn(&Figures) -> Sample,
}

/// The value of one metric.
pub(super) enum Sample {
    /// Nothing to say now.
    None,
    Number(u64),
    /// By the value of the row's label.
    Labelled(Vec<(&'static str, u64)>),
    /// With how many of its units make one of the metric's.
    Distribution(Distribution, f64),
}

impl MetricRow {
    /// The name as `# TYPE` has it, for example `lianxin_commit_duration_seconds`.
    pub fn family(&self) -> String {
        match self.unit {
            Some(unit) => format!("{}_{unit}", self.name),
            None => self.name.to_owned(),
        }
    }

    /// The names that its samples have, and that queries may use.
    pub fn sample_names(&self) -> Vec<String> {
        let suffixes: &[&str] = match self.kind {
            Counter => &["_total"],
            Gauge => &[""],
            Histogram => &["_bucket", "_sum", "_count"],
        };
        suffixes.iter().map(|suffix| self.family() + suffix).collect()
    }
}

impl MetricKind {
    /// The word of the exposition format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

const fn row(
    kind: MetricKind,
    name: &'static str,
    help: &'static str,
    chinese: &'static str,
    read: fn(&Figures) -> Sample,
) -> MetricRow {
    MetricRow { name, kind, unit: None, label: None, help, chinese, read }
}

impl MetricRow {
    const fn in_unit(mut self, unit: &'static str) -> Self {
        self.unit = Some(unit);
        self
    }

    const fn by(mut self, label: &'static str) -> Self {
        self.label = Some(label);
        self
    }
}

use MetricKind::{Counter, Gauge, Histogram};
use Sample::Number;

/// Every metric that a gateway exports, in the order of the scrape.
pub const METRICS: &[MetricRow] = &[
    row(Counter, "lianxin_messages_accepted", "Application messages accepted.", "已接受的应用消息数", |figures| {
        Number(figures.counts.messages_accepted)
    }),
    row(
        Counter,
        "lianxin_commits_accepted",
        "Starts, commits and leaves accepted.",
        "已接受的建群、提交和退出数",
        |figures| Number(figures.counts.commits_accepted),
    ),
    row(
        Counter,
        "lianxin_refusals",
        "Requests refused, by reason code (table in proto/README.md).",
        "被拒绝的请求数，按原因代码（见 proto/README.md 的表）",
        |figures| by_reason(ROWS.iter().map(ReasonRow::name), &figures.counts.refusals),
    )
    .by("reason"),
    row(
        Counter,
        "lianxin_handshake_refusals",
        "Connections refused before a caller was known, by reason.",
        "在确认来访者身份之前被拒绝的连接数，按原因",
        |figures| by_reason(RefusalReason::CODES.iter().copied(), &figures.counts.handshake_refusals),
    )
    .by("reason"),
    row(
        Counter,
        "lianxin_events_delivered",
        "Events given to receive streams, once per stream.",
        "交给接收流的事件数（每条流各计一次）",
        |figures| Number(figures.delivery.events),
    ),
    row(
        Counter,
        "lianxin_catch_up_pages",
        "Pages read from the store for receive streams that were behind.",
        "为落后的接收流从存储中补读的页数",
        |figures| Number(figures.delivery.catch_up_pages),
    ),
    row(
        Counter,
        "lianxin_streams_cut_off",
        "Streams ended because their client took nothing for too long.",
        "因客户端长时间不取而被结束的流数",
        |figures| Number(figures.counts.streams_cut_off),
    ),
    row(
        Counter,
        "lianxin_units_shed",
        "Units refused because a department's share of the committer's queue was full.",
        "因部门在提交队列中的份额已满而被拒绝的单元数",
        |figures| Number(figures.counts.units_shed),
    ),
    row(
        Counter,
        "lianxin_subscribers_moved_to_catch_up",
        "Times that a subscriber's queue was full and its channel was read from the store instead.",
        "订阅者队列已满而改为从存储读取的次数",
        |figures| Number(figures.counts.moved_to_catch_up),
    ),
    row(
        Counter,
        "lianxin_reloads",
        "Configurations and trust files taken over while serving.",
        "运行中成功采用的配置与信任文件次数",
        |figures| Number(figures.counts.reloads),
    ),
    row(
        Counter,
        "lianxin_reload_refusals",
        "Reloads refused; nothing was changed.",
        "被拒绝的重新加载次数；未作任何更改",
        |figures| Number(figures.counts.reload_refusals),
    ),
    row(
        Counter,
        "lianxin_trust_rereads",
        "Times that bundle and revocation lists were read again without being told.",
        "自动重读信任包和吊销列表的次数",
        |figures| Number(figures.counts.trust_rereads),
    ),
    row(
        Counter,
        "lianxin_audit_leaves",
        "Leaves in the zone's audit log, since the zone was made.",
        "本区审计日志的叶子数（自建区以来）",
        |figures| Number(figures.health.leaf_count),
    ),
    row(
        Histogram,
        "lianxin_commit_duration",
        "From taking a batch of units to its being durable, since the zone was opened.",
        "从取出一批单元到其落盘的时间（自打开本区以来）",
        |figures| Sample::Distribution(figures.health.commits.duration_micros.clone(), 1e6),
    )
    .in_unit("seconds"),
    row(
        Histogram,
        "lianxin_commit_batch",
        "Units accepted with one durability point, since the zone was opened.",
        "一次落盘所接受的单元数（自打开本区以来）",
        |figures| Sample::Distribution(figures.health.commits.batch_units.clone(), 1.0),
    )
    .in_unit("units"),
    row(Gauge, "lianxin_queued_units", "Units waiting for the committer.", "等待提交的单元数", |figures| {
        Number(figures.health.queued_units as u64)
    }),
    row(
        Gauge,
        "lianxin_queued_units_max",
        "Units that may wait; what comes beyond is refused with RESOURCE_EXHAUSTED.",
        "允许等待的单元数上限，超出者以 RESOURCE_EXHAUSTED 拒绝",
        |figures| Number(figures.health.queue_units_max as u64),
    ),
    row(
        Gauge,
        "lianxin_queued_bytes",
        "Bytes of the units waiting for the committer.",
        "等待提交的单元的字节数",
        |figures| Number(figures.health.queued_bytes as u64),
    ),
    row(
        Gauge,
        "lianxin_pressure_level",
        "What is put off: 0 nothing, 1 new connections, 2 also catch-up and history.",
        "暂缓的工作：0 无，1 新连接，2 还有补读与历史",
        |figures| Number(figures.pressure as u64),
    ),
    row(
        Gauge,
        "lianxin_zone_writable",
        "1 if the zone takes every unit, 0 if it is fenced or its disk is full.",
        "本区可写为 1，被隔离或磁盘已满为 0",
        |figures| Number(u64::from(figures.health.is_writable)),
    ),
    row(
        Gauge,
        "lianxin_ready",
        "1 if the gateway may be sent work, as `/readyz` and the gRPC health service say.",
        "可接收请求为 1，与 `/readyz` 及 gRPC 健康服务一致",
        |figures| Number(u64::from(figures.ready.is_ready())),
    ),
    row(
        Gauge,
        "lianxin_readiness_reason",
        "1 for each reason that `/readyz` names now (list below), also those that only warn.",
        "`/readyz` 当前列出的每个原因为 1（见下表），含仅警告的原因",
        |figures| {
            let reasons = figures.ready.reasons();
            Sample::Labelled(Reason::ALL.map(|reason| (reason.word(), u64::from(reasons.contains(&reason)))).into())
        },
    )
    .by("reason"),
    row(
        Gauge,
        "lianxin_disk_room",
        "2: room for every unit, 1: for audit records only, 0: for none.",
        "磁盘余量：2 可写全部，1 只够审计记录，0 不可写",
        |figures| {
            Number(match figures.health.room {
                Room::Everything => 2,
                Room::AuditOnly => 1,
                Room::Nothing => 0,
            })
        },
    ),
    row(
        Gauge,
        "lianxin_zone_quarantined",
        "1 if the zone stays closed until an operator has acted, since it was found damaged.",
        "发现损坏、须由运维处理后才能打开时为 1",
        |figures| Number(u64::from(figures.health.is_quarantined)),
    ),
    row(
        Gauge,
        "lianxin_fencing_number",
        "Openings of the zone so far: rises with every start, and whenever a fenced zone opens itself again.",
        "本区被打开的次数：每次启动、每次隔离后重新打开都会加一",
        |figures| Number(figures.health.fencing_number),
    ),
    row(
        Gauge,
        "lianxin_zone_disk_available",
        "Space left on the zone's disk.",
        "本区所在磁盘的可用空间",
        |figures| optional(figures.disk.map(|disk| disk.available_bytes)),
    )
    .in_unit("bytes"),
    row(Gauge, "lianxin_zone_disk_size", "Size of the zone's disk.", "本区所在磁盘的总空间", |figures| {
        optional(figures.disk.map(|disk| disk.total_bytes))
    })
    .in_unit("bytes"),
    row(
        Gauge,
        "lianxin_journal_buckets",
        "Buckets of the journal that are kept.",
        "日志中保留的存储桶数",
        |figures| Number(figures.health.journal.buckets),
    ),
    row(
        Gauge,
        "lianxin_journal_first_bucket",
        "Number of the first bucket that has not been dropped.",
        "最早一个未被丢弃的存储桶的编号",
        |figures| Number(figures.health.journal.first_bucket),
    ),
    row(
        Gauge,
        "lianxin_journal_uncopied_buckets",
        "Closed buckets of which what outlives them has not been copied yet.",
        "已关闭但需长期保留的内容尚未复制完的存储桶数",
        |figures| Number(figures.health.journal.uncopied_buckets),
    ),
    row(
        Gauge,
        "lianxin_journal_fault",
        "1 if closed buckets cannot be copied or dropped ones not removed; the zone goes on all the same.",
        "已关闭的存储桶无法复制、或被丢弃的无法删除时为 1；本区照常运行",
        |figures| Number(u64::from(figures.health.journal.fault.is_some())),
    ),
    row(
        Gauge,
        "lianxin_snapshot_leaf",
        "Leaf up to which the newest complete snapshot of the state goes; 0 without one.",
        "最新完整状态快照所到的叶子；没有则为 0",
        |figures| Number(figures.health.journal.snapshot_leaf.unwrap_or(0)),
    ),
    row(
        Gauge,
        "lianxin_snapshot_rows_written",
        "Rows written of the snapshot that is being written; 0 if none is.",
        "正在写的快照已写的行数；没有则为 0",
        |figures| Number(figures.health.journal.snapshot_rows_written),
    ),
    row(Gauge, "lianxin_connections", "Connections open, handshakes included.", "打开的连接数（含握手中）", |figures| {
        Number(figures.connections as u64)
    }),
    row(
        Gauge,
        "lianxin_connections_max",
        "Connections that may be open; further ones are refused.",
        "允许打开的连接数上限",
        |figures| Number(figures.connections_max as u64),
    ),
    row(Gauge, "lianxin_receive_streams", "Receive streams open.", "打开的接收流数", |figures| {
        Number(figures.counts.receive_streams)
    }),
    row(Gauge, "lianxin_send_streams", "Send streams open.", "打开的发送流数", |figures| {
        Number(figures.counts.send_streams)
    }),
    row(
        Gauge,
        "lianxin_trust_bundle_version",
        "Version of the trust bundle in force.",
        "生效的信任包版本",
        |figures| Number(figures.bundle_version),
    ),
    row(
        Gauge,
        "lianxin_trust_bundle_expiry_timestamp",
        "When the trust bundle in force expires, seconds since 1970-01-01T00:00:00Z.",
        "生效的信任包的到期时刻（Unix 秒）",
        |figures| moment(figures.ready.bundle_expires),
    )
    .in_unit("seconds"),
    row(
        Gauge,
        "lianxin_revocation_list_expiry_timestamp",
        "When the first of the revocation lists is due to be replaced, seconds since 1970-01-01T00:00:00Z; no sample \
         without lists.",
        "最早到期的吊销列表的到期时刻（Unix 秒）；没有列表则无样本",
        |figures| figures.ready.revocation_lists_expire.map_or(Sample::None, moment),
    )
    .in_unit("seconds"),
    row(
        Gauge,
        "lianxin_certificate_expiry_timestamp",
        "When the gateway's own certificate expires, seconds since 1970-01-01T00:00:00Z; no sample if the federation does \
         not accept it any more.",
        "网关自身证书的到期时刻（Unix 秒）；联邦不再接受该证书则无样本",
        |figures| figures.ready.certificate_expires.map_or(Sample::None, moment),
    )
    .in_unit("seconds"),
    row(
        Gauge,
        "lianxin_build_info",
        "Always 1; the label says which version runs.",
        "恒为 1；标签给出运行的版本",
        |_| Sample::Labelled(vec![(env!("CARGO_PKG_VERSION"), 1)]),
    )
    .by("version"),
    row(Gauge, "process_resident_memory", "Resident memory of the process.", "进程的常驻内存", |figures| {
        optional(figures.process.resident_bytes)
    })
    .in_unit("bytes"),
    row(Gauge, "process_open_fds", "Open file descriptors of the process.", "进程打开的文件描述符数", |figures| {
        optional(figures.process.descriptors)
    }),
    row(
        Gauge,
        "process_max_fds",
        "File descriptors that the process may open; no sample without a limit.",
        "进程可打开的文件描述符上限；无限制则无样本",
        |figures| optional(figures.process.descriptors_max),
    ),
    row(
        Gauge,
        "process_start_time",
        "When the process started, seconds since 1970-01-01T00:00:00Z.",
        "进程的启动时刻（Unix 秒）",
        |figures| moment(figures.started),
    )
    .in_unit("seconds"),
];

/// Each known reason with its count, also if it is 0: a rate needs a first value.
fn by_reason(known: impl Iterator<Item = &'static str>, counts: &BTreeMap<&'static str, u64>) -> Sample {
    let mut all: BTreeMap<&'static str, u64> = known.map(|reason| (reason, 0)).collect();
    all.extend(counts);
    Sample::Labelled(all.into_iter().collect())
}

fn optional(value: Option<u64>) -> Sample {
    value.map_or(Sample::None, Number)
}

fn moment(time: Timestamp) -> Sample {
    Number(time.seconds())
}
