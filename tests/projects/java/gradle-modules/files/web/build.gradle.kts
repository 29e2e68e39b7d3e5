plugins { id("org.springframework.boot") }
dependencies { implementation(project(":core")) }
