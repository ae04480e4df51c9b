//! The commands about sessions: `ermine clients`, `ermine subscriptions`.

use crate::admin::protocol::{ClientDetail, Reply, Request, SubscriptionEntry};
use crate::cli::args::{ClientsArgs, ClientsCommand, ListArgs, NodeArgs};
use crate::cli::commands::{Found, print, say};
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::cli::table::{Table, counted, harmless};
use crate::cli::time::utc;

/// Lists, shows or kicks.
pub(super) async fn clients(args: ClientsArgs) -> Result<(), Failure> {
    match args.command {
        None => list(args).await,
        Some(ClientsCommand::Show { client_id, list }) => show_one(client_id, list).await,
        Some(ClientsCommand::Kick { client_id, node }) => kick(client_id, node).await,
    }
}

async fn list(args: ClientsArgs) -> Result<(), Failure> {
    let found = Found::find(&args.list.node, None).await?;
    let request = Request::ClientDetails {
        after: args.after,
        limit: args.limit.unwrap_or(0),
    };
    let details = found.list(request, |reply| match reply {
        Reply::ClientDetails(chunk) => Some(chunk),
        _ => None,
    });
    print(args.list.output.json, &details.await?, table);
    Ok(())
}

async fn show_one(client_id: String, args: ListArgs) -> Result<(), Failure> {
    let found = Found::find(&args.node, None).await?;
    let (mut detail, mut held) = (None, Vec::new());
    let told = found.ask(Request::Client { client_id }, |reply| match reply {
        Reply::ClientDetails(mut one) => detail = one.pop(),
        Reply::Subscriptions(chunk) => held.extend(chunk),
        _ => {}
    });
    told.await?;
    let unsaid = || Failure::command("the node did not answer what was asked: see its log".into());
    let detail = detail.ok_or_else(unsaid)?;
    say(&if args.output.json {
        show::as_json(&serde_json::json!({"client": detail, "subscriptions": held}))
    } else {
        one(&detail, &held)
    });
    Ok(())
}

async fn kick(client_id: String, args: NodeArgs) -> Result<(), Failure> {
    let found = Found::find(&args, None).await?;
    let request = Request::Kick {
        client_id: client_id.clone(),
    };
    found.ask(request, |_| ()).await?;
    let (client, node) = (harmless(&client_id), found.name());
    say(&format!("{client} on {node} is disconnected\n"));
    Ok(())
}

/// Prints the subscriptions of all sessions.
pub(super) async fn subscriptions(args: ListArgs) -> Result<(), Failure> {
    let found = Found::find(&args.node, None).await?;
    let held = found.list(Request::Subscriptions, |reply| match reply {
        Reply::Subscriptions(chunk) => Some(chunk),
        _ => None,
    });
    print(args.output.json, &held.await?, |held| match held {
        [] => "no subscriptions\n".into(),
        held => held_table(held) + &format!("{}\n", counted(held.len(), "subscription", "subscriptions")),
    });
    Ok(())
}

fn word(text: Option<&String>) -> String {
    text.map_or_else(|| "-".into(), Clone::clone)
}

/// One line for each session.
fn table(clients: &[ClientDetail]) -> String {
    if clients.is_empty() {
        return "no clients\n".into();
    }
    let heads = [
        "CLIENT",
        "ADDRESS",
        "MQTT",
        "USER",
        "SINCE",
        ">SUBS",
        ">QUEUE",
        ">INFLIGHT",
        ">MAILBOX",
        "PID",
    ];
    let mut table = Table::new(&heads);
    for client in clients {
        table.row([
            client.client_id.clone(),
            if client.connected {
                word(client.address.as_ref())
            } else {
                "away".into()
            },
            word(client.protocol.as_ref()),
            word(client.username.as_ref()),
            utc(client.since_ms),
            client.subscriptions.to_string(),
            client.queue_len.to_string(),
            client.inflight_len.to_string(),
            client.mailbox_len.to_string(),
            word(client.pid.as_ref()),
        ]);
    }
    table.render() + &format!("{}\n", counted(clients.len(), "client", "clients"))
}

/// All that is known of one.
fn one(client: &ClientDetail, held: &[SubscriptionEntry]) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<14}: {}\n", harmless(&value)));
    line("client", client.client_id.clone());
    line(
        "connection",
        if client.connected {
            format!(
                "{} by {}, MQTT {}",
                word(client.address.as_ref()),
                word(client.listener.as_ref()),
                word(client.protocol.as_ref())
            )
        } else {
            "away".into()
        },
    );
    line("user", word(client.username.as_ref()));
    if let Some(name) = &client.common_name {
        line("certificate", name.clone());
    }
    let kept = if client.persistent {
        "outlives its connection"
    } else {
        "ends with its connection"
    };
    line("session", format!("since {}, {kept}", utc(client.since_ms)));
    line("pid", word(client.pid.as_ref()));
    line("mailbox", client.mailbox_len.to_string());
    let slow = if client.slow { ", slow" } else { "" };
    line("queue", format!("{}{slow}", client.queue_len));
    line("in flight", client.inflight_len.to_string());
    line("bytes held", client.weight_bytes.to_string());
    line("subscriptions", client.subscriptions.to_string());
    if !client.answered {
        line("note", "the session is busy and did not answer in time".into());
    }
    if !held.is_empty() {
        text.push('\n');
        text.push_str(&held_table(held));
    }
    text
}

fn held_table(held: &[SubscriptionEntry]) -> String {
    let mut table = Table::new(&["CLIENT", "FILTER", ">QOS", ">NL", ">RAP", ">RH", ">ID"]);
    for entry in held {
        table.row([
            entry.client_id.clone(),
            entry.filter.clone(),
            entry.qos.to_string(),
            u8::from(entry.no_local).to_string(),
            u8::from(entry.retain_as_published).to_string(),
            entry.retain_handling.to_string(),
            entry.identifier.map_or_else(|| "-".into(), |id| id.to_string()),
        ]);
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(connected: bool) -> ClientDetail {
        ClientDetail {
            client_id: "c\u{7}1".into(),
            connected,
            since_ms: 0,
            pid: Some("<0.42.0>".into()),
            mailbox_len: 0,
            answered: true,
            address: connected.then(|| "127.0.0.1:5".into()),
            listener: None,
            username: None,
            common_name: None,
            protocol: Some("3.1.1".into()),
            persistent: true,
            subscriptions: 1,
            queue_len: 2,
            inflight_len: 3,
            weight_bytes: 4,
            slow: false,
        }
    }

    #[test]
    fn a_client_is_one_line_that_cannot_move_the_cursor() {
        let text = table(&[client(true), client(false)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[1].starts_with("c\\u{7}1  127.0.0.1:5  3.1.1  -     1970-01-01T00:00:00Z"),
            "{text}"
        );
        assert!(lines[2].contains("away"));
        assert_eq!(lines[3], "2 clients");
        assert_eq!(table(&[]), "no clients\n");
    }

    #[test]
    fn one_client_is_shown_with_its_subscriptions() {
        let held = SubscriptionEntry {
            client_id: "c1".into(),
            filter: "a/#".into(),
            qos: 2,
            no_local: true,
            retain_as_published: false,
            retain_handling: 1,
            identifier: None,
        };
        let text = one(&client(true), &[held]);
        assert!(
            text.contains("connection    : 127.0.0.1:5 by -, MQTT 3.1.1\n"),
            "{text}"
        );
        assert!(text.ends_with("c1      a/#       2   1    0   1   -\n"), "{text}");
    }
}
