//! One row for every reason code: what it means and what to do (PROTOCOL 7). `proto/README.md` prints this table.

use tonic::Code;

pub use crate::types::v1::ReasonCode;

/// What one reason code means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReasonRow {
    /// The code.
    pub code: ReasonCode,
    /// The gRPC code that goes with it.
    pub grpc: Code,
    /// What happened, in a few words.
    pub meaning: &'static str,
    /// Whether the same request may succeed later without a change by the application.
    pub try_again: bool,
    /// What the application or its SDK should do.
    pub what_to_do: &'static str,
    /// What happened and what to do, in Chinese.
    pub chinese: &'static str,
}

impl ReasonRow {
    /// The row of a code; `None` for `Unspecified`, which is never sent.
    pub fn of(code: ReasonCode) -> Option<&'static Self> {
        ROWS.iter().find(|row| row.code == code)
    }

    /// The code's name without the prefix that protobuf wants, for example `WRONG_EPOCH`.
    pub fn name(&self) -> &'static str {
        let whole = self.code.as_str_name();
        whole.strip_prefix("REASON_CODE_").unwrap_or(whole)
    }
}

#[derive(Clone, Copy)]
enum Again {
    Yes,
    No,
}

const fn row(
    code: ReasonCode,
    grpc: Code,
    again: Again,
    meaning: &'static str,
    what_to_do: &'static str,
    chinese: &'static str,
) -> ReasonRow {
    ReasonRow { code, grpc, meaning, try_again: matches!(again, Yes), what_to_do, chinese }
}

use Again::{No, Yes};
use ReasonCode as R;

/// One row for every code that can be sent, ascending by number.
pub const ROWS: &[ReasonRow] = &[
    row(
        R::UpgradeRequired,
        Code::FailedPrecondition,
        No,
        "client's protocol version is too old",
        "install a newer SDK",
        "客户端协议版本过旧；请升级 SDK",
    ),
    row(
        R::WrongKind,
        Code::PermissionDenied,
        No,
        "this kind of certificate may not call this service",
        "connect with a certificate of the kind that the service names",
        "该类证书不得调用此服务；请改用服务所要求类别的证书",
    ),
    row(
        R::CertificateRevoked,
        Code::Unauthenticated,
        No,
        "certificate has been revoked",
        "stop; ask the department's issuer for a new certificate",
        "证书已被吊销；请停止使用，并向本部门签发机构申请新证书",
    ),
    row(
        R::CertificateExpired,
        Code::Unauthenticated,
        No,
        "certificate has expired",
        "renew the certificate and connect again",
        "证书已过期；请续期后重新连接",
    ),
    row(
        R::Malformed,
        Code::InvalidArgument,
        No,
        "a field is missing or malformed",
        "a fault of the client: correct the field that is named",
        "字段缺失或格式错误；属客户端缺陷，请修正所指字段",
    ),
    row(
        R::TooLarge,
        Code::InvalidArgument,
        No,
        "a size or a count is over its limit",
        "send less: limit and found value are given",
        "大小或数量超出上限；请按给出的上限缩减",
    ),
    row(
        R::ResourceExhausted,
        Code::ResourceExhausted,
        Yes,
        "too much at once",
        "wait, then go on more slowly",
        "并发或队列已满；请稍候并放慢速度",
    ),
    row(
        R::ZoneUnavailable,
        Code::Unavailable,
        Yes,
        "the zone cannot write now",
        "repeat with the same id after a delay; the first try may have been accepted",
        "存储区暂不可写；请稍后用同一标识重发，首次请求可能已被接受",
    ),
    row(
        R::ShuttingDown,
        Code::Unavailable,
        Yes,
        "the gateway is shutting down",
        "connect again, repeat with the same id",
        "网关正在停机；请重新连接并用同一标识重发",
    ),
    row(
        R::Internal,
        Code::Internal,
        Yes,
        "a fault of the gateway",
        "repeat with the same id a few times, then tell the operator",
        "网关内部故障；可用同一标识重试数次，仍失败请联系运维",
    ),
    row(
        R::IdReused,
        Code::AlreadyExists,
        No,
        "the idempotency id stands for other bytes",
        "a fault of the client: draw a new id for each request",
        "幂等标识已用于其他内容；属客户端缺陷，每个请求须用新标识",
    ),
    row(
        R::BehindRefused,
        Code::Aborted,
        Yes,
        "an earlier message of this channel was refused and must go first",
        "send again from the refused message on, in order",
        "同一频道的前一条消息被拒，须先行处理；请从被拒消息起依次重发",
    ),
    row(
        R::TrustChanged,
        Code::Unavailable,
        Yes,
        "trust bundle or revocation lists were replaced",
        "open the stream again and fetch the trust bundle",
        "信任包或吊销列表已更新；请重新打开流并获取新信任包",
    ),
    row(
        R::TooSlow,
        Code::ResourceExhausted,
        Yes,
        "the client took nothing of what was sent, or did not finish what it began to send, for too long",
        "open the stream again from the own cursor, read faster, and send again what has no answer",
        "客户端长时间未读取数据，或已开始发送的消息迟迟未发完；请从本地游标重新打开流、及时读取，并重发未获答复的内容",
    ),
    row(
        R::DiskFull,
        Code::Unavailable,
        Yes,
        "the zone's disk is full; the request was not accepted",
        "repeat with the same id after a delay; the operator has been told",
        "存储区磁盘已满，请求未被接受；请稍后用同一标识重发，运维已获告警",
    ),
    row(
        R::ChannelNotAvailable,
        Code::NotFound,
        No,
        "channel is not available",
        "there is nothing to do: unknown and foreign channels look alike",
        "频道不可用；不存在与无权访问给出同样答复",
    ),
    row(
        R::ChannelExists,
        Code::AlreadyExists,
        No,
        "a channel with this id exists",
        "draw a new channel id",
        "该频道标识已存在；请重新生成标识",
    ),
    row(
        R::ChannelExpired,
        Code::FailedPrecondition,
        No,
        "the channel's label has expired",
        "open a new channel; this one can only be read",
        "频道已到期；只能读取，请另建频道",
    ),
    row(
        R::NotMember,
        Code::PermissionDenied,
        No,
        "caller is not a member any more",
        "stop sending; a member may invite the device again",
        "已不再是频道成员；请停止发送，可由成员重新邀请",
    ),
    row(
        R::WrongEpoch,
        Code::Aborted,
        Yes,
        "message or commit is not of the current epoch",
        "read up to the sequence given, then encrypt or commit again",
        "消息或提交不属于当前纪元；请读取至所给序号后重新加密或提交",
    ),
    row(
        R::PendingRemoves,
        Code::Aborted,
        Yes,
        "proposals wait and must be committed first",
        "read up to the sequence given, commit the proposals, then go on",
        "有待提交的提案；请读取至所给序号，先提交这些提案",
    ),
    row(
        R::BadHead,
        Code::FailedPrecondition,
        No,
        "the head in the authenticated data does not fit the log",
        "compare the own chain with the log; if they differ, report a violation",
        "认证数据中的链头与日志不符；请核对本地链，不一致则报告违规",
    ),
    row(
        R::Duplicate,
        Code::AlreadyExists,
        No,
        "these mls bytes were accepted before",
        "drop the message; encrypt anew if it is meant again",
        "相同的 MLS 字节已被接受；请丢弃，确需再发须重新加密",
    ),
    row(
        R::Leaving,
        Code::FailedPrecondition,
        No,
        "caller's leaf is to be removed",
        "send nothing more in this channel",
        "调用方即将被移出频道；不可再发送",
    ),
    row(
        R::CommitterPaused,
        Code::FailedPrecondition,
        No,
        "a member cannot process a commit of the caller's, which may not commit until its owner allows it",
        "find out why; then another device of the own department allows it to commit again; sending goes on",
        "有成员无法处理调用方此前的提交，提交权限已暂停；请查明原因，再由本部门另一设备恢复其提交；消息收发不受影响",
    ),
    row(
        R::UnknownCommit,
        Code::FailedPrecondition,
        No,
        "the log has no such commit",
        "a fault of the client: report what the log holds",
        "日志中没有该提交；属客户端缺陷，请按日志内容上报",
    ),
    row(
        R::NotOwner,
        Code::PermissionDenied,
        No,
        "caller is not another device of the owner's department in the channel",
        "let another device of the department do it that is or was in the channel",
        "只有该设备所属部门在本频道中的其他设备才能执行；请改用该部门的另一设备",
    ),
    row(
        R::InvalidMls,
        Code::InvalidArgument,
        No,
        "bytes are not an mls message that this call takes",
        "a fault of the client: correct it",
        "字节不是此调用所需的 MLS 消息；属客户端缺陷",
    ),
    row(
        R::InvalidCommit,
        Code::InvalidArgument,
        No,
        "commit does not verify against the group",
        "drop the commit, read on, make a new one",
        "提交未通过群组验证；请丢弃、继续读取后重新生成",
    ),
    row(
        R::InvalidGroupInfo,
        Code::InvalidArgument,
        No,
        "group info does not belong to the commit or breaks the profile",
        "a fault of the client: correct it",
        "GroupInfo 与提交不符或违反协议规范；属客户端缺陷",
    ),
    row(
        R::InvalidContext,
        Code::InvalidArgument,
        No,
        "group context is not as the profile demands",
        "a fault of the client: correct it",
        "群组上下文不符合协议规范；属客户端缺陷",
    ),
    row(
        R::SenderMismatch,
        Code::PermissionDenied,
        No,
        "the mls leaf that signed is not the caller's",
        "use the MLS key of the device that holds the connection",
        "MLS 签名叶节点不属于调用方；请使用本设备的密钥",
    ),
    row(
        R::InvalidCredential,
        Code::PermissionDenied,
        No,
        "a credential does not verify",
        "leave out the device that it belongs to; ask its department",
        "凭证未通过验证；请勿加入该设备，并联系其所属部门",
    ),
    row(
        R::CredentialExpired,
        Code::FailedPrecondition,
        No,
        "the certificate of a credential is not valid now",
        "renew the certificate; others wait until its owner has",
        "凭证的证书当前无效；须由其所有者续期",
    ),
    row(
        R::CredentialRevoked,
        Code::FailedPrecondition,
        No,
        "the certificate of a credential is revoked",
        "leave out the device that it belongs to",
        "凭证的证书已被吊销；请勿加入该设备",
    ),
    row(
        R::InvalidKeyPackage,
        Code::InvalidArgument,
        No,
        "a key package is malformed, expired, valid for too long or of another suite",
        "publish new key packages; claim another one",
        "密钥包格式错误、过期、有效期过长或套件不符；请重新发布或另行领取",
    ),
    row(
        R::KeyPackageNotClaimed,
        Code::FailedPrecondition,
        No,
        "a one-time key package was not claimed for this channel",
        "claim key packages for this channel, then commit again",
        "一次性密钥包并非为本频道领取；请为本频道领取后重新提交",
    ),
    row(
        R::NoKeyPackage,
        Code::FailedPrecondition,
        Yes,
        "an owner has no key package left",
        "try later: the device publishes more when it connects",
        "对方已无可用密钥包；请待其上线发布后再试",
    ),
    row(
        R::ProposalNotAllowed,
        Code::InvalidArgument,
        No,
        "a kind of proposal that the profile does not allow here",
        "a fault of the client: leave the proposal out",
        "此处不允许该类提案；请去除该提案",
    ),
    row(
        R::InvalidWelcome,
        Code::InvalidArgument,
        No,
        "a welcome is missing or there for nobody",
        "a fault of the client: send a Welcome exactly when somebody is added",
        "Welcome 缺失或无对应新成员；仅在添加成员时附带",
    ),
    row(
        R::DepartmentNotNamed,
        Code::PermissionDenied,
        No,
        "the channel does not name the department",
        "open a channel that names it",
        "频道未列明该部门；请另建列明该部门的频道",
    ),
    row(
        R::DepartmentUnknown,
        Code::NotFound,
        No,
        "the department is not in the trust bundle",
        "correct the name or wait for the next trust bundle",
        "信任包中无此部门；请更正名称或等待新信任包",
    ),
    row(
        R::ZoneNotHere,
        Code::FailedPrecondition,
        No,
        "the channel's zone is not this gateway's",
        "connect to an endpoint of that zone from the trust bundle",
        "频道所在存储区不由本网关服务；请按信任包连接相应端点",
    ),
    row(
        R::LimitReached,
        Code::ResourceExhausted,
        No,
        "a limit of members, departments, channels or key packages is reached",
        "make room: the limit is given",
        "成员、部门、频道或密钥包数量已达上限；请先腾出名额",
    ),
    row(
        R::IssuerAway,
        Code::Unavailable,
        Yes,
        "no issuer of the caller's department answers now",
        "try again later, before the certificate ends; the department starts its issuer",
        "本部门签发程序暂未应答；请在证书到期前重试，并由部门启动签发程序",
    ),
    row(
        R::RenewalRefused,
        Code::PermissionDenied,
        No,
        "the department's issuer has refused to renew the certificate",
        "ask the department; without it the device ends with its certificate",
        "本部门签发程序拒绝为证书续期；请联系本部门，否则设备将随证书到期而停用",
    ),
    row(
        R::UnknownRenewal,
        Code::NotFound,
        No,
        "no such renewal of the issuer's department waits",
        "drop the answer; the device asks again",
        "没有待处理的该续期请求；请丢弃该答复，设备会再次请求",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_row_in_order() {
        let all: Vec<_> = (1..1_000).filter_map(|number| ReasonCode::try_from(number).ok()).collect();
        let rows: Vec<_> = ROWS.iter().map(|row| row.code).collect();
        assert_eq!(rows, all);
        assert!(all.len() >= 40);
        assert_eq!(ReasonRow::of(ReasonCode::Unspecified), None);
    }

    #[test]
    fn the_texts_are_fit_to_print() {
        for row in ROWS {
            let texts = [row.meaning, row.what_to_do, row.chinese];
            assert!(texts.iter().all(|text| !text.is_empty() && !text.contains('|') && !text.ends_with(['.', '。'])));
            assert!(row.meaning.starts_with(char::is_lowercase), "{}", row.meaning);
            assert!(row.chinese.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c)), "{}", row.chinese);
            assert!(row.name().chars().all(|c| c.is_ascii_uppercase() || c == '_'), "{}", row.name());
        }
    }

    #[test]
    fn absent_and_foreign_channels_get_one_text() {
        let row = ReasonRow::of(ReasonCode::ChannelNotAvailable).expect("every code has a row");
        assert_eq!((row.grpc, row.try_again), (Code::NotFound, false));
    }
}
