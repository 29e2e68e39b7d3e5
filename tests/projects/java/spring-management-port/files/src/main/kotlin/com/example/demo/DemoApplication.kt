package com.example.demo
@SpringBootApplication
class DemoApplication
