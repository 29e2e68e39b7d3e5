plugins {
    id("org.springframework.boot") version "3.3.0"
    kotlin("jvm") version "2.0.0"
}
java { toolchain { languageVersion = JavaLanguageVersion.of(17) } }
