//! The images that Covibes made, and whether a container has them.

use std::collections::{HashMap, HashSet};

use bollard::Docker;
use bollard::query_parameters::{ListContainersOptions, ListImagesOptions};

use crate::domain::names::ImageRef;
use crate::ports::engine::{ObservedImage, label};

pub(super) async fn of_the_host(
    docker: &Docker,
) -> Result<Vec<ObservedImage>, bollard::errors::Error> {
    let ours = vec![format!("{}=host", label::INSTANCE)];
    let filters = Some(HashMap::from([("label".to_owned(), ours)]));
    let images =
        docker.list_images(Some(ListImagesOptions { filters, ..Default::default() })).await?;
    // After the images, so that one that came meanwhile is not taken for unused.
    let all = ListContainersOptions { all: true, ..Default::default() };
    let containers = docker.list_containers(Some(all)).await?;
    let used: HashSet<String> = containers.into_iter().filter_map(|c| c.image_id).collect();
    let observed = images.iter().flat_map(|image| {
        let named = image.repo_tags.iter().filter_map(|tag| {
            let (name, tag) = tag.strip_prefix("covibes/")?.split_once(':')?;
            ImageRef::local(name, tag)
        });
        named.map(|name| ObservedImage {
            image: name,
            created_unix_ms: image.created.saturating_mul(1000),
            in_use: used.contains(&image.id),
        })
    });
    Ok(observed.collect())
}
