//! A failing run as one page that stands for itself: no other file, no address, no network. A time line that one steps through by
//! buttons or keys; the page is whole and can be read without a script, too.

use super::{Rows, letter};
use std::fmt::Write;

const STYLE: &str = "body{font:15px/1.4 sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#222;background:#fff}\
table{border-collapse:collapse;width:100%}th,td{padding:.2em .6em;vertical-align:top;text-align:left;border-left:1px solid #ddd}\
td.at,td.fn{color:#777;font-family:monospace;white-space:nowrap}tr.later{opacity:.15}tr.now td{background:#fff3c4}\
tr.noticed td{color:#b00020}pre{background:#f4f4f4;padding:1em;overflow:auto}nav{position:sticky;top:0;background:#fff;padding:.5em 0}\
button{font:inherit;min-width:3em}p.finding{font-weight:bold;color:#b00020}";

const SCRIPT: &str = "const rows=[...document.querySelectorAll('tr[data-row]')];const bar=document.getElementById('bar');\
const where=document.getElementById('where');let now=rows.length;\
function show(n){now=Math.max(1,Math.min(rows.length,n));rows.forEach((row,i)=>{row.classList.toggle('later',i>=now);\
row.classList.toggle('now',i===now-1)});bar.value=now;where.textContent=now+' of '+rows.length;\
rows[now-1].scrollIntoView({block:'nearest'})}\
document.getElementById('first').onclick=()=>show(1);document.getElementById('back').onclick=()=>show(now-1);\
document.getElementById('next').onclick=()=>show(now+1);document.getElementById('last').onclick=()=>show(rows.length);\
bar.oninput=()=>show(+bar.value);document.onkeydown=event=>{const steps={ArrowRight:1,ArrowDown:1,' ':1,ArrowLeft:-1,ArrowUp:-1};\
if(event.key==='Home')show(1);else if(event.key==='End')show(rows.length);else if(event.key in steps)show(now+steps[event.key]);\
else return;event.preventDefault()};if(rows.length)show(1);";

/// What is told beside the run.
pub struct About<'a> {
    /// Scene, manner, behaviours.
    pub title: &'a str,
    /// The scene's text.
    pub source: &'a str,
    /// What was found.
    pub finding: &'a str,
    /// Sentences below it: when this happens, how often, how it was found.
    pub notes: &'a [String],
}

/// The page.
pub fn page(about: &About<'_>, told: &Rows) -> String {
    let title = escaped(about.title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n<h1>{title}</h1>\n<p class=\"finding\">{}</p>\n",
        escaped(about.finding)
    );
    for note in about.notes {
        let _ = writeln!(page, "<p>{}</p>", escaped(note));
    }
    let rows = told.rows.len();
    let _ = write!(
        page,
        "<nav><button id=\"first\" title=\"Home\">|&lt;</button> <button id=\"back\" title=\"Left\">&lt;</button> \
         <button id=\"next\" title=\"Right\">&gt;</button> <button id=\"last\" title=\"End\">&gt;|</button> \
         <input id=\"bar\" type=\"range\" min=\"1\" max=\"{rows}\" value=\"{rows}\" aria-label=\"step\"> <span id=\"where\"></span></nav>\n\
         <table>\n<thead><tr><th>point</th>"
    );
    for (n, actor) in told.actors.iter().enumerate() {
        let _ = write!(page, "<th>{} {}</th>", letter(n), escaped(actor));
    }
    page += "<th>in Linux</th></tr></thead>\n<tbody>\n";
    for row in &told.rows {
        let class = if row.is_noticed() { " class=\"noticed\"" } else { "" };
        let _ = write!(page, "<tr data-row{class}><td class=\"at\">{}</td>", row.step);
        for column in 0..told.actors.len() {
            let text = if column == row.column { escaped(&row.text) } else { String::new() };
            let _ = write!(page, "<td>{text}</td>");
        }
        let function = if row.is_noticed() { "" } else { row.function };
        let _ = writeln!(page, "<td class=\"fn\">{}</td></tr>", escaped(function));
    }
    let _ = write!(
        page,
        "</tbody>\n</table>\n<h2>The scene</h2>\n<pre>{}</pre>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
        escaped(about.source)
    );
    page
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::super::Row;
    use super::*;

    #[test]
    fn a_page_stands_for_itself_and_says_what_it_was_given() {
        let row = |column, text: &str, function| Row { column, step: 7, text: text.into(), function };
        let rows =
            vec![row(0, "> tile1 read b", ""), row(1, "a < b & \"c\"", "xe_svm_copy"), row(1, "!! it wrote", "!!")];
        let told = Rows { actors: vec!["main thread", "engine of tile 1"], rows };
        let about =
            About { title: "scene <x>", source: "memory b 64K\n", finding: "data lost", notes: &["When: now.".into()] };
        let page = page(&about, &told);
        for outside in ["http", "href", "src=", "url(", "@import", "//", "fetch("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert_eq!(page.matches("<tr data-row").count(), 3);
        assert_eq!(page.matches("class=\"noticed\"").count(), 1);
        assert!(page.contains("a &lt; b &amp; &quot;c&quot;") && page.contains("<title>scene &lt;x&gt;</title>"));
        for control in ["first", "back", "next", "last", "bar", "ArrowRight", "ArrowLeft", "Home", "End"] {
            assert!(page.contains(control), "{control}");
        }
        let used = SCRIPT.split("getElementById('").skip(1).filter_map(|rest| rest.split('\'').next());
        used.for_each(|id| assert!(page.contains(&format!("id=\"{id}\"")), "{id}"));
    }
}
