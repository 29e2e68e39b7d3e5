open System
