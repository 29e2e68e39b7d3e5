rootProject.name = "x"
