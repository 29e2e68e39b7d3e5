package config
func Load() *Config {
	viper.SetDefault("PORT", "9000")
	return &Config{Port: viper.GetString("PORT")}
}
