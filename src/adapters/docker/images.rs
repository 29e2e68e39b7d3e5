//! The building of images.

use bollard::query_parameters as query;
use bollard::{Docker, body_full};
use futures::StreamExt as _;

use super::map::error;
use super::{create, map};
use crate::ports::engine::{EngineError, ImageBuild, OnLine};

/// Builds an image with the classic builder.
pub(super) async fn build(
    docker: &Docker,
    build: &ImageBuild,
    on_line: OnLine<'_>,
) -> Result<(), EngineError> {
    let context = create::context_tar(&build.files)?;
    let options = query::BuildImageOptions {
        dockerfile: "Dockerfile".to_owned(),
        t: Some(build.image.as_str().to_owned()),
        rm: true,
        // Without it a failed build leaves containers behind.
        forcerm: true,
        buildargs: Some(build.args.clone().into_iter().collect()),
        labels: Some(build.labels.clone().into_iter().collect()),
        ..Default::default()
    };
    let mut lines = map::Lines::default();
    let mut stream =
        std::pin::pin!(docker.build_image(options, None, Some(body_full(context.into()))));
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
