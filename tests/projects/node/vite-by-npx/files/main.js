import * as THREE from 'three';
