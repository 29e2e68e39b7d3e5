package main

const serverPort = 7777
