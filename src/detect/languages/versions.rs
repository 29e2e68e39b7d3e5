//! Where languages state their version: a file of their own, or that of a version manager.

use crate::detect::look::Look;
use crate::detect::tree::{join, parent};

use super::Said;

/// The first line of the nearest of these files that says something, upward from the app.
pub(crate) fn file(look: &Look<'_>, dir: &str, names: &[&str]) -> Option<Said<String>> {
    std::iter::successors(Some(dir), |place| parent(place)).find_map(|place| {
        names.iter().find_map(|name| {
            if !look.has(place, name) {
                return None;
            }
            let path = join(place, name);
            let text = look.hint(&path)?;
            let mut lines =
                text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
            Some((lines.find(|line| !line.is_empty())?.to_owned(), path))
        })
    })
}

/// The version that a version manager's file gives to one of these tools.
pub(crate) fn manager(look: &Look<'_>, dir: &str, tools: &[&str]) -> Option<Said<String>> {
    std::iter::successors(Some(dir), |place| parent(place)).find_map(|place| {
        ["mise.toml", ".mise.toml", ".tool-versions"].iter().find_map(|name| {
            if !look.has(place, name) {
                return None;
            }
            let path = join(place, name);
            let text = look.hint(&path)?;
            let version = if name.ends_with("toml") {
                let table: toml::Table = text.parse().ok()?;
                let tools = tools.iter().find_map(|tool| table.get("tools")?.get(tool))?;
                let tool = tools.as_array().and_then(|list| list.first()).unwrap_or(tools);
                let tool = tool.get("version").unwrap_or(tool);
                tool.as_str().map_or_else(|| tool.to_string(), str::to_owned)
            } else {
                text.lines().find_map(|line| {
                    let mut words = line.split_whitespace();
                    let tool = words.next()?;
                    tools.contains(&tool).then(|| words.next())?.map(str::to_owned)
                })?
            };
            Some((version, path))
        })
    })
}
