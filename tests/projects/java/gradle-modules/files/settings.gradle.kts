rootProject.name = "shop"
include("core", "web")
include(":batch")
