//! Channels that the gateway follows no more on a connection.

use lianxin_connection::{Problem, ReasonCode};
use lianxin_types::ChannelId;

use crate::drive::Drive;
use crate::event::keep;
use crate::pump::not_served;
use crate::shared::News;
use crate::{ClientError, Event};

impl Drive {
    /// The gateway follows a channel no more. What may pass by itself passes with the next connection.
    pub(crate) async fn closed(&mut self, channel: ChannelId, reason: Problem) -> Result<(), ClientError> {
        if reason.try_again {
            return Err(ClientError::Refused(reason));
        }
        let told = match reason.code {
            // The one place of which a Follow tells is where to go on.
            ReasonCode::BadHead => Event::GatewayBehind { channel },
            _ => Event::ChannelGone { channel, reason: reason.to_string() },
        };
        self.given_up(channel, told).await
    }

    pub(crate) async fn gone(&mut self, channel: ChannelId, reason: String) -> Result<(), ClientError> {
        self.given_up(channel, Event::ChannelGone { channel, reason }).await
    }

    async fn given_up(&mut self, channel: ChannelId, told: Event) -> Result<(), ClientError> {
        self.forget(channel);
        let member = self.shared.transaction(move |tx, mls| {
            let member = mls.channel(tx, channel)?.is_some() || mls.lost(tx)?.contains(&channel);
            // After an own removal the end of the subscription is no news.
            if member {
                keep(tx, &told)?;
            }
            Ok(member)
        });
        if member.await? {
            self.gone.insert(channel);
            not_served(&self.shared, channel).await?;
            self.shared.bells.ring(&News::Events);
        }
        // What was withheld until the log would tell more.
        self.offer(channel).await
    }
}
