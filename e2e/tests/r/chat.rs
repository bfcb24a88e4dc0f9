//! OpenAI's chat API over a group whose members declare `chat`: streamed, whole, and with a death in mid-stream.

use outlive_e2e::{Group, World};
use serde_json::{Value, json};

/// A group that answers each message with its words, one chunk each, and dies of the word `die`.
fn chatty(world: &World) -> Group {
    let start = "handlers['chat'] = '''for word in task.input['messages'][-1]['content'].split(' '):\n    \
                 if word == 'die': os.write(2, b'RuntimeError: CUDA error: device-side assert triggered\\\\n'); os._exit(1)\n    \
                 if word == 'raise': raise ValueError('no such word')\n    text(word + ' ')'''\n\
                 hello(tasks=['python', 'chat'], capabilities=['chat']); ready()";
    let group = Group::up(&world.api(), "echo", &world.group_of(vec![world.raw_member("m-0", start)]));
    group.wait_ready();
    group
}

fn ask(world: &World, content: &str, stream: bool) -> (u16, String) {
    let body = json!({"model": "echo", "messages": [{"role": "user", "content": content}], "stream": stream});
    let response = world.api().request("POST", "/v1/chat/completions", Some(&body));
    (response.status, String::from_utf8(response.body).expect("an answer is text"))
}

/// What the events of a stream hold, in order; `[DONE]` is the last.
fn events(stream: &str) -> Vec<Value> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| Value::from(data))).collect()
}

// B4: an answer in one, and as it comes.
#[test]
fn an_answer() {
    let world = World::new();
    let _daemon = world.daemon();
    let _group = chatty(&world);
    let (status, body) = ask(&world, "to be or not", false);
    assert_eq!(status, 200, "{body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(answer["choices"][0]["message"]["content"], "to be or not ", "{answer}");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop", "{answer}");

    let (status, body) = ask(&world, "to be or not", true);
    assert_eq!(status, 200, "{body}");
    let events = events(&body);
    assert_eq!(events.last(), Some(&Value::from("[DONE]")), "{body}");
    let text = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    assert_eq!(text.collect::<String>(), "to be or not ");
    let models = world.api().get("/v1/models");
    assert_eq!(models["data"][0]["id"], "echo", "{models}");
}

// A11, A12: its runner dies in mid-stream: the client has what was said, then an error object with the cause.
#[test]
fn a_death_in_mid_stream() {
    let world = World::new();
    let _daemon = world.daemon();
    let group = chatty(&world);
    let (status, body) = ask(&world, "one two die three", true);
    assert_eq!(status, 200, "it had begun: {body}");
    let told = events(&body);
    let text = told.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
    assert_eq!(text.collect::<String>(), "one two ");
    let errors: Vec<&Value> =
        told.iter().map(|event| &event["error"]).filter(|error| !error.is_null()).collect();
    assert_eq!(errors.len(), 1, "{body}");
    assert_eq!(errors[0]["cause"], "gpu-fault", "{}", errors[0]);
    assert!(errors[0]["diagnostics"].to_string().contains("device-side assert"), "{}", errors[0]);
    assert_eq!(told.last(), Some(&Value::from("[DONE]")), "{body}");

    group.wait_incarnation(0, 2);
    let (status, body) = ask(&world, "one die", false);
    assert!(status >= 500, "{status} {body}");
    let answer: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(answer["error"]["cause"], "gpu-fault", "{answer}");

    group.wait_incarnation(0, 3);
    let (_, body) = ask(&world, "one raise", true);
    assert!(body.contains("ValueError") && body.contains("no such word"), "{body}");
    assert_eq!(group.member(0)["runtime"]["incarnation"], 3, "that one lives on");
}
