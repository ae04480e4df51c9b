//! Hello: one node, one subscriber, one publisher, one message.
//!
//! `cargo run --example hello`

#[path = "stage/mod.rs"]
mod stage;

use std::process::ExitCode;
use std::time::Instant;

use stage::client::Client;
use stage::host::{Host, said};
use stage::{Told, act};

fn main() -> ExitCode {
    stage::perform(hello)
}

fn hello(host: &Host) -> Told {
    act("a node");
    let mut node = host.start("hello@127.0.0.1", &[])?;

    act("a message");
    let mut subscriber = Client::connect(node.mqtt, "subscriber")?;
    subscriber.subscribe("greetings/+")?;
    println!("subscriber: connected, subscribed to greetings/+");
    let mut publisher = Client::connect(node.mqtt, "publisher")?;
    let began = Instant::now();
    publisher.publish("greetings/world", "hello")?;
    let (topic, text) = subscriber.receive()?;
    println!("publisher:  \"hello\" to greetings/world with QoS 1, acknowledged");
    println!(
        "subscriber: \"{text}\" from {topic}, after {} µs in all",
        began.elapsed().as_micros()
    );
    if (topic.as_str(), text.as_str()) != ("greetings/world", "hello") {
        return Err(format!(
            "what arrived is not what was sent: {text:?} from {topic}"
        ));
    }

    act("what the node knows of it");
    host.show("routes")?;
    host.show("clients")?;

    act("the end");
    let mark = node.log.mark();
    host.show("stop")?;
    subscriber.wait_for_close()?;
    let status = node.wait()?;
    for line in node
        .log
        .since(mark)
        .iter()
        .filter(|line| line.contains("ermine::node"))
    {
        println!("hello │ {}", said(line));
    }
    if !status.success() {
        return Err(format!("the node ended with {status}"));
    }
    println!("the node ended with status 0");
    Ok(())
}
