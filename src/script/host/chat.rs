//! `chat.send(channel, text)`: puts a message into the outbox. Repeated attempts of an execution send it once. `chat.progress(text)` tells
//! the person who asked for the execution in chat how far it is; it needs no capability, since it reaches nobody else.

use std::sync::Arc;

use rhai::{Dynamic, ImmutableString, Module};

use super::module::function;
use super::{HostModule, ScriptCall, thrown};
use crate::model::failure::Failure;

pub(super) const MODULE: HostModule = HostModule {
    name: "chat",
    summary: "Messages, with the capability `chat: true`. Repeated attempts of an execution send each of them once.",
    values: &[],
    functions: &[
        function(
            "chat.send(channel, text)",
            "A message in Markdown to a channel of the site; durable on return.",
            "chat.send(\"ops\", \"**done**\")",
            "null",
        ),
        function(
            "chat.progress(text)",
            "Tells whoever asked for the execution in chat how far it is, at most once a second; nothing where nobody did. Needs no capability.",
            "chat.progress(\"3 of 7 pods are ready\")",
            "null",
        ),
    ],
    object,
    register,
};

#[derive(Clone)]
struct Chat(Arc<ScriptCall>);

fn object(call: &Arc<ScriptCall>) -> Dynamic {
    Dynamic::from(Chat(Arc::clone(call)))
}

fn register(module: &mut Module) {
    module.set_custom_type::<Chat>("chat");
    module.set_native_fn("send", |chat: &mut Chat, channel: ImmutableString, text: ImmutableString| {
        let call = &chat.0;
        if !call.pack.capabilities.chat {
            return Err(thrown(Failure::capability(&call.pack.reference, "send to chat", "chat: true")));
        }
        call.acts("chat.send")?;
        let (index, text) = (call.next_message().map_err(thrown)?, call.masked(&text));
        call.wait(call.host.send_message(call.execution, index, &channel, text))
    });
    module.set_native_fn("progress", |chat: &mut Chat, text: ImmutableString| {
        let call = &chat.0;
        call.acts("chat.progress")?;
        call.host.progress(call.execution, call.masked(&text));
        Ok(())
    });
}
