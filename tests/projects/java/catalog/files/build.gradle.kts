plugins {
    alias(libs.plugins.spring.boot)
}
