//! Images: what Covibes made, whether a container has it, and the building of more.

use std::collections::{HashMap, HashSet};

use bollard::query_parameters::{self as query, ListContainersOptions, ListImagesOptions};
use bollard::{Docker, body_full};
use futures::StreamExt as _;

use super::map::error;
use super::{create, map};
use crate::ports::engine::{EngineError, ImageBuild, ObservedImage, OnLine};

/// Lists the images of Covibes' own, by name.
pub(super) async fn own(docker: &Docker) -> Result<Vec<ObservedImage>, bollard::errors::Error> {
    let reference = vec!["covibes/*".to_owned()];
    let filters = Some(HashMap::from([("reference".to_owned(), reference)]));
    let images =
        docker.list_images(Some(ListImagesOptions { filters, ..Default::default() })).await?;
    // After the images, so that one that came meanwhile is not taken for unused.
    let all = ListContainersOptions { all: true, ..Default::default() };
    let containers = docker.list_containers(Some(all)).await?;
    let used: HashSet<String> = containers.into_iter().filter_map(|c| c.image_id).collect();
    Ok(images.into_iter().flat_map(|image| map::images(image, &used)).collect())
}

/// Builds an image with the classic builder.
pub(super) async fn build(
    docker: &Docker,
    build: &ImageBuild,
    on_line: OnLine<'_>,
) -> Result<(), EngineError> {
    let context = create::context(build)?;
    let options = query::BuildImageOptions {
        t: Some(build.image.as_str().to_owned()),
        rm: true,
        // Without it a failed build leaves containers behind.
        forcerm: true,
        buildargs: Some(build.args.clone().into_iter().collect()),
        labels: Some(build.labels.clone().into_iter().collect()),
        ..create::build_limits(build)
    };
    let mut lines = map::Lines::default();
    let mut stream = std::pin::pin!(docker.build_image(options, None, Some(body_full(context))));
    while let Some(progress) = stream.next().await {
        match progress {
            Ok(info) => {
                if let Some(detail) = info.error_detail {
                    return Err(EngineError::Build { message: detail.message.unwrap_or_default() });
                }
                lines.push(info.stream.unwrap_or_default().as_bytes(), on_line);
            }
            Err(bollard::errors::Error::DockerStreamError { error }) => {
                return Err(EngineError::Build { message: error });
            }
            Err(e) => return Err(error(e, build.image.as_str())),
        }
    }
    lines.finish(on_line);
    Ok(())
}
