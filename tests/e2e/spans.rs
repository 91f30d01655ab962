//! What the SDK tells `tracing`: where something happens, and never what is said there.

use std::collections::BTreeSet;
use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use lianxin_sdk::{Classification, Label};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

use crate::talk::{accept, departments, own, receive, send, soon, texts};
use crate::zone::Zone;

const PURPOSE: &str = "恒远公司付款核查";
const BODY: &str = "三号标段的供应商请重点看";

/// Everything that reaches `tracing` on this thread, whatever its level.
#[derive(Clone, Default)]
struct Heard {
    /// Spans of the SDK in which something happened, as `parent>name`.
    spans: Arc<Mutex<BTreeSet<String>>>,
    /// All names, fields and messages.
    text: Arc<Mutex<String>>,
}

impl Heard {
    fn note(&self, what: &str) {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(what);
        text.push('\n');
    }
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").expect("a string takes everything");
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, " {field}={value}").expect("a string takes everything");
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Heard {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let mut fields = Fields(attributes.metadata().name().to_owned());
        attributes.record(&mut fields);
        self.note(&fields.0);
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id).filter(|span| span.metadata().target().starts_with("lianxin_sdk")) else {
            return;
        };
        let path = format!("{}>{}", span.parent().map(|parent| parent.name()).unwrap_or_default(), span.name());
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).insert(path);
    }

    fn on_record(&self, _: &Id, record: &Record<'_>, _: Context<'_, S>) {
        let mut fields = Fields("recorded".to_owned());
        record.record(&mut fields);
        self.note(&fields.0);
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields(event.metadata().target().to_owned());
        event.record(&mut fields);
        self.note(&fields.0);
    }
}

/// On one thread, so that the listener hears both applications and the gateway between them.
#[tokio::test]
async fn spans_say_where_something_happens_and_nothing_of_what_is_said() {
    let heard = Heard::default();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(heard.clone()));
    let zone = Zone::start().await;
    let [jiwei, shenji] = zone.clients(["jiwei", "shenji"]).await;
    let label = Label::new(Classification::General3, PURPOSE, "审计法第三十七条", None).expect("valid");
    let at_jiwei = soon("a channel", jiwei.create(label, &departments(&["jiwei", "shenji"]))).await.expect("created");
    soon("an invite", at_jiwei.invite(&[shenji.device().clone()])).await.expect("invited");
    let at_shenji = accept(&shenji).await;
    send(&at_jiwei, BODY).await;
    assert_eq!(texts(&receive(&at_shenji, 1).await), [BODY]);
    own(&at_jiwei, 1).await;
    soon("leaving", at_shenji.leave()).await.expect("left");
    let (channel, device) = (at_jiwei.id().to_hex(), jiwei.device().as_str().to_owned());
    for client in [jiwei, shenji] {
        client.close().await.expect("closes");
    }
    drop(guard);
    zone.close().await;

    let spans = heard.spans.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let expected = [">accept", ">create", ">invite", ">leave", ">send", ">session", "session>connection"];
    assert_eq!(spans, expected.map(str::to_owned).into());
    let text = heard.text.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for span in
        [format!("session device={device}"), format!("send channel={channel}"), format!("recorded channel={channel}")]
    {
        assert!(text.lines().any(|line| line == span), "no {span:?} in\n{text}");
    }
    for secret in [PURPOSE, BODY, "审计法"] {
        assert!(!text.contains(secret), "{secret} was told to tracing");
        let bytes = format!("{:?}", secret.as_bytes());
        assert!(!text.contains(bytes.trim_matches(['[', ']'])), "{secret} was told to tracing as bytes");
    }
}
