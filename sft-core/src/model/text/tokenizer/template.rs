//! A conversation as one text, by the Jinja template that comes with a tokenizer.
//!
//! Templates are made for Hugging Face's environment: Jinja2 that trims blocks, with Python's methods of
//! texts and lists, loop controls, `tojson`, `raise_exception` and `strftime_now`.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use crate::{Error, Result};

const NAME: &str = "chat_template";
/// Steps of a template before it is given up.
const FUEL: u64 = 10_000_000;
/// The date that templates are told, that of `LLaMA`'s own where they are told none: what becomes of
/// a conversation does not depend on the day.
const DATE: [(&str, &str); 13] = [
    ("%d", "26"),
    ("%-d", "26"),
    ("%b", "Jul"),
    ("%B", "July"),
    ("%m", "07"),
    ("%Y", "2024"),
    ("%y", "24"),
    ("%a", "Fri"),
    ("%A", "Friday"),
    ("%H", "00"),
    ("%M", "00"),
    ("%S", "00"),
    ("%%", "%"),
];

/// A tokenizer's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// The texts of the tokens that a text begins and ends with.
    bos: String,
    eos: String,
}

impl ChatTemplate {
    /// # Errors
    /// What is no template.
    pub(super) fn new(source: &str, [bos, eos]: [String; 2]) -> Result<Self> {
        let mut environment = Environment::new();
        let mut syntax = SyntaxConfig::builder();
        let syntax = syntax.trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| refused(&e))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", raise);
        environment.add_function("strftime_now", date);
        let added = environment.add_template_owned(NAME, source.to_string());
        added.map_err(|e| refused(&e))?;
        Ok(Self {
            environment,
            bos,
            eos,
        })
    }

    /// The text of some messages, tables with at least `role` and `content`; with `asks` also what an
    /// answer begins with.
    ///
    /// # Errors
    /// Messages that the template refuses, or a template that cannot be carried out.
    pub fn render(&self, messages: &[serde_json::Value], asks: bool) -> Result<String> {
        let template = self.environment.get_template(NAME);
        let messages = messages.iter().map(Value::deserialize);
        let messages: Vec<Value> = messages.collect::<Result<_, _>>().map_err(|e| {
            let reason = format!("cannot be told the messages: {e}");
            Error::argument(NAME, reason)
        })?;
        let text = template.and_then(|template| {
            template.render(context! {
                messages => messages,
                add_generation_prompt => asks,
                bos_token => self.bos.as_str(),
                eos_token => self.eos.as_str(),
                tools => (),
            })
        });
        text.map_err(|e| refused(&e))
    }
}

fn refused(error: &minijinja::Error) -> Error {
    Error::argument(NAME, format!("cannot be carried out: {error}"))
}

fn raise(message: &str) -> Result<Value, minijinja::Error> {
    Err(failed(message.to_string()))
}

fn failed(message: String) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, message)
}

/// [`DATE`] in a format of Python's `strftime`.
fn date(format: &str) -> Result<String, minijinja::Error> {
    let mut text = String::new();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let known = DATE.iter().find(|(code, _)| rest.starts_with(code));
        let unknown = || failed(format!("strftime_now does not know {rest:?}"));
        let (code, part) = known.ok_or_else(unknown)?;
        text.push_str(part);
        rest = &rest[code.len()..];
    }
    text.push_str(rest);
    Ok(text)
}

/// JSON as Python's `json.dumps` writes it, with `indent` where that is given.
// The engine hands arguments over.
#[allow(clippy::needless_pass_by_value)]
fn to_json(value: Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent = options.get::<Option<usize>>("indent")?;
    let mut out = Vec::new();
    let written = match indent {
        Some(indent) => {
            let indent = " ".repeat(indent.min(16));
            let format = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, format))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, Spaced)),
    };
    written.map_err(|e| failed(e.to_string()))?;
    String::from_utf8(out).map_err(|e| failed(e.to_string()))
}

/// One line, with a space behind every comma and colon.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
    ) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(source, ["<s>".into(), "</s>".into()]).unwrap()
    }

    #[test]
    fn templates_have_what_hugging_face_gives_them() {
        let messages = [
            json!({"role": "user", "content": " hi <b> "}),
            json!({"role": "assistant", "content": "ho", "calls": [{"a": 1, "b": "<ü>"}]}),
        ];
        let source = "{{ bos_token }}{% for message in messages %}
    {%- if message['content'] is string %}
        [{{ message.role.upper() }}] {{ message['content'].strip() }}{{ eos_token }}
    {%- endif %}
    {%- if message.calls is defined %}{{ message.calls | tojson }}{% endif %}
{% endfor %}
{% if add_generation_prompt %}[A]{% endif %}{{ tools }}";
        let text = template(source).render(&messages, true).unwrap();
        let wanted = "<s>        [USER] hi <b></s>        [ASSISTANT] ho</s>\
            [{\"a\": 1, \"b\": \"<ü>\"}][A]None";
        assert_eq!(text.replace('\n', ""), wanted);
        let dated =
            template("{{ strftime_now('%d %b %Y') }}{{ [1, {'a': 2}] | tojson(indent=1) }}");
        let text = dated.render(&[], false).unwrap();
        assert_eq!(text, "26 Jul 2024[\n 1,\n {\n  \"a\": 2\n }\n]");
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused() {
        let error = |source: &str| {
            let template = ChatTemplate::new(source, [String::new(), String::new()]);
            let text = template.and_then(|template| template.render(&[], false));
            text.unwrap_err().to_string()
        };
        for (source, part) in [
            ("{% if %}", "syntax error"),
            ("{{ raise_exception('no system role') }}", "no system role"),
            ("{{ messages[0].role.upper() }}", "undefined"),
            ("{{ strftime_now('%c') }}", "does not know \"%c\""),
            (
                "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
                "fuel",
            ),
        ] {
            let error = error(source);
            assert!(
                error.starts_with("chat_template cannot be carried out"),
                "{error}"
            );
            assert!(error.contains(part), "{error}");
        }
    }
}
