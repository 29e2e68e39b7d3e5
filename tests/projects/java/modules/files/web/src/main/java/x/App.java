@SpringBootApplication
class App {}
